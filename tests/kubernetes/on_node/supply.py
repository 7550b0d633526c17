"""Modules from every source, with the right digest and a wrong one, and what is served while a source is down."""

import hashlib
import http.server
import json
import ssl
import subprocess
import threading

import yaml

import rig
from rig import (COMPONENTS, DIR, HELM4, NODE, OWN_IMAGE, case, chart, create, decide, delete, eventually, get, inside, namespace,
                 ready_pod, require)
from admission import certificate

MODULE = COMPONENTS / "pii-guard.wasm"
CARD = "My card is 4111 1111 1111 1111"
WRONG = "0" * 64


def digest():
    return hashlib.sha256(MODULE.read_bytes()).hexdigest()


def record(sha256=None, module="file:pii-guard.wasm", **more):
    made = {"id": "pii_guard", "type": "validator", "module": module, **more}
    if sha256:
        made["sha256"] = sha256
    return json.dumps(made)


class Policy:
    """A policy with the guard."""

    def __enter__(self):
        rig.base()
        rig.put_policy(name="guarded", validators=[{"id": "pii_guard", "on_fail": "block"}])

    def __exit__(self, *_):
        rig.heir("DELETE", "/api/v1/policies/acme/guarded")


def router(place, name, extensions=None, config=None, edit=None):
    """A Router by the include, with extensions from there; one pod of it."""
    values = {"sidecar": {"image": OWN_IMAGE, "store": {"url": "http://heir.beamline:8090"}, "extensions": extensions or {}, "config": config or {}}}
    text = HELM4.with_values("template", "demo", chart("router-with-include"), place, values)
    [made] = [part for part in yaml.safe_load_all(text) if part and part["kind"] == "Deployment"]
    pod = rig.pod(name)
    pod["metadata"]["annotations"] = made["spec"]["template"]["metadata"]["annotations"]
    for part in ["initContainers", "volumes"]:
        pod["spec"][part] = made["spec"]["template"]["spec"][part]
    if edit:
        edit(pod)
    create(pod, place)
    return ready_pod(name, place, 90)


def reason(answer):
    """Why a guard blocked: because of what it found, or because it was not there."""
    return answer["error"].get("details", {}).get("reason", answer["error"]["code"])


def guards(found, seconds=60):
    """The guard refuses a card, and nothing else."""
    def blocks():
        status, answer = decide(found, CARD)
        return "error" in answer and reason(answer) not in ("extension_unavailable", "extension_not_found") and (status, answer)
    status, answer = eventually("the guard", blocks, seconds)
    require("pii" in json.dumps(answer).lower() or "blocked" in json.dumps(answer).lower(), lambda: json.dumps(answer))
    status, answer = decide(found, "Good morning")
    require(status == 200, lambda: json.dumps(answer))


def refuses_the_digest(found):
    """The module is not taken, the page says why, and policies that name it say so."""
    def told():
        nonlocal page
        _, page = inside(found, "http://127.0.0.1:9901/admin/extensions")
        return "digest" in page.lower() or "sha-256" in page.lower()
    page = ""
    try:
        eventually("the page's word on the digest", told, 20)
    except rig.Failed as error:
        raise rig.Failed(f"{error}: {page}") from None
    status, answer = decide(found, "Good morning")
    require("error" in answer, lambda: json.dumps(answer))
    require(reason(answer) in ("extension_unavailable", "extension_not_found"), lambda: json.dumps(answer))
    return reason(answer)


def right_and_wrong(place, extensions_of):
    """One pod with the right digest, one with a wrong."""
    guards(router(place, "right", extensions_of("right")))
    return "wrong digest: " + refuses_the_digest(router(place, "wrong", extensions_of("wrong")))


DIGESTS = {"right": digest, "wrong": lambda: WRONG}


@case
def modules_of_a_config_map():
    with Policy(), namespace("of-config-map") as place:
        for kind, sha256 in DIGESTS.items():
            create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": kind}, "immutable": True,
                    "data": {"pii_guard.json": record(sha256())}, "binaryData": {"pii-guard.wasm": rig.b64(MODULE.read_bytes())}}, place)
        return right_and_wrong(place, lambda kind: {"configMap": kind})


@case
def modules_of_an_image_volume_and_of_its_next_version():
    with Policy(), namespace("of-image-volume") as place:
        for kind, sha256 in DIGESTS.items():
            rig.build(f"localhost/extensions:{kind}", {"pii_guard.json": record(sha256()), "pii-guard.wasm": MODULE}, "FROM scratch\nCOPY . /\n")
        said = right_and_wrong(place, lambda kind: {"image": {"reference": f"localhost/extensions:{kind}", "pullPolicy": "Never"}})
        # The next version is another tag, and comes with the next pods: here, one that is switched off.
        rig.build("localhost/extensions:next", {"pii_guard.json": record(digest(), enabled=False), "pii-guard.wasm": MODULE}, "FROM scratch\nCOPY . /\n")
        found = router(place, "next", {"image": {"reference": "localhost/extensions:next", "pullPolicy": "Never"}})
        status, answer = decide(found, CARD)
        require("error" in answer and reason(answer) == "extension_not_found", lambda: json.dumps(answer))
        return said


@case
def modules_of_an_image_that_is_copied_first():
    with Policy(), namespace("of-init-image") as place:
        for kind, sha256 in DIGESTS.items():
            rig.build(f"localhost/copied:{kind}", {"busybox": rig.Path("/bin/busybox"), "extensions/pii_guard.json": record(sha256()), "extensions/pii-guard.wasm": MODULE},
                      "FROM scratch\nCOPY busybox /bin/cp\nCOPY extensions /extensions\nENV PATH=/bin\n")
        return right_and_wrong(place, lambda kind: {"initImage": {"reference": f"localhost/copied:{kind}", "pullPolicy": "Never"}})


@case
def modules_of_a_claim():
    with Policy(), namespace("of-claim") as place:
        for kind, sha256 in DIGESTS.items():
            folder = rig.volume(f"claim-{kind}")
            (folder / "pii_guard.json").write_text(record(sha256()))
            (folder / "pii-guard.wasm").write_bytes(MODULE.read_bytes())
            create({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": kind}, "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": "", "volumeName": f"claim-{kind}", "resources": {"requests": {"storage": "1Gi"}}}}, place)
        said = right_and_wrong(place, lambda kind: {"persistentVolumeClaim": kind})
    for kind in DIGESTS:
        delete("persistentvolumes", f"claim-{kind}")
    return said


@case
def modules_of_heir_and_a_module_that_heir_lost():
    with Policy(), namespace("of-heir") as place:
        rig.extension("pii_guard", "validator", "pii-guard.wasm")
        try:
            guards(router(place, "right"))
            status, _, answer = rig.http_call("PUT", f"http://{rig.service('heir')}:8090/api/v1/modules/{WRONG}", MODULE.read_bytes())
            require(status in (400, 409, 422), lambda: f"HEIR took a module under another digest: {status} {answer[:200]}")
            return f"HEIR refuses another digest with {status}"
        finally:
            rig.heir("DELETE", "/api/v1/extensions/pii_guard")


class Registry:
    """Debian's docker-registry, beside the node, without TLS."""

    port = 5000

    def __enter__(self):
        folder = DIR / "registry"
        folder.mkdir(exist_ok=True)
        (folder / "config.yml").write_text(f"version: 0.1\nstorage: {{filesystem: {{rootdirectory: {folder}}}, delete: {{enabled: true}}}}\nhttp: {{addr: '{NODE}:{self.port}'}}\n")
        self.config = folder / "config.yml"
        self.start()
        return self

    def start(self):
        self.process = subprocess.Popen(["docker-registry", "serve", str(self.config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        eventually("the registry", lambda: rig.http_call("GET", f"http://{NODE}:{self.port}/v2/")[0] == 200, 30)

    def stop(self):
        self.process.terminate()
        self.process.wait(30)

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.stop()

    def push(self, module, name="guard", tag="1"):
        """A module as the CNCF's artifact of WebAssembly; its manifest's digest."""
        base = f"http://{NODE}:{self.port}/v2/{name}"
        config = json.dumps({"architecture": "wasm", "os": "wasip2", "layerDigests": [f"sha256:{hashlib.sha256(module).hexdigest()}"]}).encode()
        for blob in [config, module]:
            status, headers, _ = rig.http_call("POST", f"{base}/blobs/uploads/", b"")
            require(status == 202, f"the registry answered {status}")
            where = headers["location"]
            where = where if where.startswith("http") else f"http://{NODE}:{self.port}{where}"
            sha256 = hashlib.sha256(blob).hexdigest()
            status, _, said = rig.http_call("PUT", f"{where}{'&' if '?' in where else '?'}digest=sha256:{sha256}", blob, {"content-type": "application/octet-stream"})
            require(status == 201, lambda: f"the registry answered {status}: {said}")

        def described(media, blob):
            return {"mediaType": media, "digest": f"sha256:{hashlib.sha256(blob).hexdigest()}", "size": len(blob)}
        manifest = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
                               "config": described("application/vnd.wasm.config.v0+json", config), "layers": [described("application/wasm", module)]}).encode()
        status, _, said = rig.http_call("PUT", f"{base}/manifests/{tag}", manifest, {"content-type": "application/vnd.oci.image.manifest.v1+json"})
        require(status == 201, lambda: f"the registry answered {status}: {said}")
        return hashlib.sha256(manifest).hexdigest()


def config_map(place, name, text):
    create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"pii_guard.json": text}}, place)


@case
def modules_of_a_registry_and_the_last_good_one_while_it_is_down():
    with Policy(), namespace("of-registry") as place, Registry() as registry:
        manifest = registry.push(MODULE.read_bytes())
        config = {"extensions.module_hosts": [NODE], "extensions.registries.plain_http": [f"{NODE}:{registry.port}"]}
        config_map(place, "right", record(module=f"oci://{NODE}:{registry.port}/guard:1@sha256:{manifest}"))
        config_map(place, "wrong", record(module=f"oci://{NODE}:{registry.port}/guard:1@sha256:{manifest}", sha256=WRONG))
        found = router(place, "right", {"configMap": "right"}, config)
        guards(found)
        code = refuses_the_digest(router(place, "wrong", {"configMap": "wrong"}, config))
        # With the registry gone the container starts again, with what its emptyDir has.
        registry.stop()
        for pid in sum(rig.processes(found).values(), []):
            subprocess.run(["kill", "-9", str(pid)], check=False)
        eventually("the next start", lambda: rig.containers(get("pods", "right", place))["beamline-sidecar"]["restartCount"] == 1
                   and rig.is_ready(get("pods", "right", place)), 90)
        guards(get("pods", "right", place))
        return f"wrong digest: {code}; with the registry down the last good module is there after a restart"


@case
def modules_of_the_web():
    with Policy(), namespace("of-web") as place:
        folder = DIR / "web"
        certificate(folder, [f"IP:{NODE}"])
        content = MODULE.read_bytes()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                self.send_response(200)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *_):
                pass
        server = http.server.ThreadingHTTPServer((NODE, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "tls.crt", folder / "tls.key")
        server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            # The authorities of the public web are a file of the image; here it is the server's own.
            create({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "web-ca"}, "data": {"ca-certificates.crt": (folder / "ca.crt").read_text()}}, place)
            url = f"https://{NODE}:{server.server_port}/pii-guard.wasm"
            for kind, sha256 in DIGESTS.items():
                config_map(place, kind, record(sha256(), module=url))
            config = {"extensions.module_hosts": [NODE]}

            def trusts(pod):
                pod["spec"]["volumes"].append({"name": "web-ca", "configMap": {"name": "web-ca"}})
                rig.sidecar_of(pod)["volumeMounts"].append({"name": "web-ca", "mountPath": "/etc/ssl/certs"})
            made = {kind: router(place, kind, {"configMap": kind}, config, trusts) for kind in DIGESTS}
            guards(made["right"])
            return "wrong digest: " + refuses_the_digest(made["wrong"])
        finally:
            server.shutdown()
