"""The webhook on a real API server: who gets the sidecar, who is refused, and what happens while something is broken."""

import base64
import contextlib
import http.server
import json
import os
import signal
import ssl
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import rig
from rig import (HELM4, INJECTOR, NODE, ApiError, Failed, bare, case, chart, create, delete, eventually, get, kubectl, listed, merge, merged,
                 metrics, namespace, ready_pod, refused, require, rolled_out, run, sidecar_of)

INJECTOR_NAME = "injector-beamline-sidecar-injector"
CONFIGURATION = "mutatingwebhookconfigurations"


def created(document, place, dry_run=True):
    return create(document, place, "?dryRun=All" if dry_run else "")


def has_sidecar(pod):
    return [part["name"] for part in pod["spec"].get("initContainers", []) + pod["spec"]["containers"]].count("beamline-sidecar")


def configuration():
    [found] = [one for one in listed(CONFIGURATION) if INJECTOR_NAME in one["metadata"]["name"]]
    return found


def injectors():
    return [pod for pod in listed("pods", "beamline", "app.kubernetes.io/instance=injector") if "deletionTimestamp" not in pod["metadata"]]


@contextlib.contextmanager
def without_injector():
    merge("deployments", INJECTOR_NAME, {"spec": {"replicas": 0}}, "beamline")
    try:
        eventually("the end of the injector's pods", lambda: not listed("pods", "beamline", "app.kubernetes.io/instance=injector"))
        yield
    finally:
        merge("deployments", INJECTOR_NAME, {"spec": {"replicas": 2}}, "beamline")
        rolled_out(INJECTOR_NAME, "beamline")


@contextlib.contextmanager
def failing(policy):
    """The webhook's failurePolicy is another for a while."""
    def change(to):
        configured = configuration()
        patch = [{"op": "replace", "path": f"/webhooks/{place}/failurePolicy", "value": to} for place in range(len(configured["webhooks"]))]
        rig.api.call("PATCH", rig.path(CONFIGURATION, name=configured["metadata"]["name"]), patch, "application/json-patch+json")
    change(policy)
    try:
        yield
    finally:
        change("Fail")


@contextlib.contextmanager
def without_backstop():
    """The policy's binding is taken away, and put back as it was."""
    where = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings"
    [binding] = [one for one in rig.api.call("GET", where)["items"] if INJECTOR_NAME in one["metadata"]["name"]]
    rig.api.call("DELETE", f"{where}/{binding['metadata']['name']}")
    for name in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "generation"]:
        binding["metadata"].pop(name, None)
    try:
        yield
    finally:
        rig.api.call("POST", where, {**binding, "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding"})


class Webhook:
    """A webhook of somebody else, on the node."""

    def __init__(self, name, patch_of, after="zz", cert=None, delay=0):
        folder = rig.DIR / f"webhook-{name}"
        folder.mkdir(exist_ok=True)
        if cert is None:
            run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj", "/CN=x",
                "-addext", f"subjectAltName=IP:{NODE}", "-keyout", folder / "tls.key", "-out", folder / "tls.crt")
            cert = folder / "tls.crt", folder / "tls.key", (folder / "tls.crt").read_bytes()
        self.asked = 0
        webhook = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))["request"]
                webhook.asked += 1
                time.sleep(delay)
                patch = patch_of(request["object"])
                response = {"uid": request["uid"], "allowed": True}
                if patch:
                    response |= {"patchType": "JSONPatch", "patch": rig.b64(json.dumps(patch))}
                body = json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()
                with contextlib.suppress(OSError):
                    self.send_response(200)
                    self.send_header("content-type", "application/json")
                    self.send_header("content-length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer((NODE, 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert[0], cert[1])
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()
        self.name, self.bundle = f"{after}-{name}", cert[2]
        self.url = f"https://{NODE}:{self.server.server_port}/"

    def __enter__(self):
        create({"apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration", "metadata": {"name": self.name}, "webhooks": [{
            "name": f"{self.name}.example.com", "admissionReviewVersions": ["v1"], "sideEffects": "None", "timeoutSeconds": 5,
            "reinvocationPolicy": "IfNeeded", "clientConfig": {"url": self.url, "caBundle": rig.b64(self.bundle)},
            "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
            "objectSelector": {"matchLabels": {"other-webhook": "yes"}}}]})
        return self

    def __exit__(self, *_):
        delete(CONFIGURATION, self.name)
        self.server.shutdown()


@case
def labelled_pods_get_the_sidecar_and_others_never_reach_the_injector():
    rig.base()

    def reviews():
        return sum(float(line.rsplit(" ", 1)[1]) for pod in injectors() for line in metrics(pod["status"]["podIP"]).splitlines()
                   if line.startswith("beamline_sidecar_inject_reviews_total"))
    with namespace("happy") as place:
        before = reviews()
        for labels in [{"sidecar.beamline.dev/inject": "disabled"}, {"sidecar.beamline.dev/inject": None}]:
            document = bare("plain", labels=labels)
            document["metadata"]["labels"] = {key: value for key, value in document["metadata"]["labels"].items() if value}
            require(has_sidecar(created(document, place)) == 0, "a pod got the sidecar that did not ask")
        require(reviews() == before, "the injector was asked about pods that it has nothing to do with")
        pod = created(bare("labelled"), place)
        require(has_sidecar(pod) == 1 and pod["spec"]["initContainers"][0]["restartPolicy"] == "Always", lambda: json.dumps(pod["spec"]))
        require(reviews() == before + 1, "the injector was not asked once")
        marks = pod["metadata"]["annotations"]
        require(marks["sidecar.beamline.dev/status"] == "injected" and marks["sidecar.beamline.dev/fragment-sha256"], lambda: json.dumps(marks))


@case
def namespaces_that_opt_out_are_left_alone():
    rig.base()
    with namespace("opted-out", {"sidecar.beamline.dev/injection": "disabled"}) as place:
        require(has_sidecar(created(bare("labelled"), place)) == 0, "a pod got the sidecar")


@case
def a_pod_that_has_the_sidecar_by_an_include_gets_it_once():
    rig.base()
    with namespace("twice") as place:
        injected = created(bare("first"), place)
        again = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "second", "labels": injected["metadata"]["labels"],
                 "annotations": injected["metadata"]["annotations"]}, "spec": injected["spec"]}
        require(has_sidecar(created(again, place)) == 1, "the pod has the sidecar twice")


@case
def another_webhook_that_adds_a_container_comes_after_and_nothing_is_doubled():
    rig.base()

    def add(pod):
        if any(part["name"] == "other" for part in pod["spec"]["containers"]):
            return None
        other = {**pod["spec"]["containers"][0], "name": "other"}
        empty = [] if "initContainers" in pod["spec"] else [{"op": "add", "path": "/spec/initContainers", "value": []}]
        return [*empty, {"op": "add", "path": "/spec/containers/-", "value": other},
                {"op": "add", "path": "/spec/initContainers/0", "value": {**other, "name": "first-of-others", "ports": [], "readinessProbe": None}}]
    for order in ["zz", "aa"]:
        with namespace(f"second-{order}") as place, Webhook("adds", add, after=order) as other:
            pod = eventually("the other webhook", lambda: (lambda made: len(made["spec"]["containers"]) == 2 and made)(
                created(bare("both", labels={"other-webhook": "yes"}), place)))
            names = [part["name"] for part in pod["spec"]["initContainers"]]
            require(sorted(names) == ["beamline-sidecar", "first-of-others"], lambda: str(names))
            require(other.asked, "the other webhook was never asked")


@case
def another_webhook_that_takes_the_restart_policy_away_is_found_by_the_backstop():
    rig.base()

    def strip(pod):
        place = next((at for at, part in enumerate(pod["spec"].get("initContainers", [])) if part["name"] == "beamline-sidecar"), None)
        if place is None or "restartPolicy" not in pod["spec"]["initContainers"][place]:
            return None
        probes = [name for name in ["startupProbe", "livenessProbe", "readinessProbe"] if name in pod["spec"]["initContainers"][place]]
        return [{"op": "remove", "path": f"/spec/initContainers/{place}/{name}"} for name in ["restartPolicy", *probes]]
    with namespace("stripped") as place, Webhook("strips", strip):
        def is_refused():
            try:
                created(bare("stripped", labels={"other-webhook": "yes"}), place)
            except ApiError as error:
                return error.message
        message = eventually("a refusal", is_refused)
        require("took the sidecar away" in message, message)
        return message[:160]


@case
def a_mistaken_annotation_refuses_the_pod_by_its_name_and_an_unknown_one_is_warned_of():
    rig.base()
    with namespace("mistaken") as place:
        message = refused(bare("bad", annotations={"sidecar.beamline.dev/cpu-limit": "much"}), place)
        require("sidecar.beamline.dev/cpu-limit" in message and "must be" in message, message)
        message = refused(bare("bad", annotations={"sidecar.beamline.dev/image": "evil.example/x:1"}), place)
        require("is not allowed here" in message, message)
        created(bare("typo", annotations={"sidecar.beamline.dev/log-levle": "debug"}), place)
        require("log-levle" in rig.api.last_warnings(), lambda: f"no warning: {rig.api.last_warnings()!r}")
        pod = created(bare("good", annotations={"sidecar.beamline.dev/cpu-limit": "200m", "sidecar.beamline.dev/memory-limit": "48Mi"}), place)
        require(sidecar_of(pod)["resources"]["limits"] == {"cpu": "200m", "memory": "48Mi"}, lambda: json.dumps(sidecar_of(pod)["resources"]))


@case
def a_dry_run_changes_nothing():
    rig.base()
    with namespace("dry") as place:
        before = configuration()["metadata"]["resourceVersion"], get("secrets", f"{INJECTOR_NAME}-cert", "beamline")["metadata"]["resourceVersion"]
        require(has_sidecar(created(bare("dry"), place)) == 1, "the dry run shows no sidecar")
        after = configuration()["metadata"]["resourceVersion"], get("secrets", f"{INJECTOR_NAME}-cert", "beamline")["metadata"]["resourceVersion"]
        require(before == after and not listed("pods", place), "a dry run changed something")
        said = HELM4.with_values("install", "dry", chart("router-with-include"), place, {"image": {"repository": "localhost/router"},
                                 "sidecar": {"image": rig.OWN_IMAGE}}, "--dry-run=server")
        require("beamline-sidecar" in said and not listed("deployments", place), said)


@case
def fail_closed_refuses_labelled_pods_and_no_others_while_the_injector_is_down():
    rig.base()
    with namespace("closed") as place, without_injector():
        message = refused(bare("labelled"), place)
        require("inject.sidecar.beamline.dev" in message, message)
        document = bare("plain")
        del document["metadata"]["labels"]["sidecar.beamline.dev/inject"]
        created(document, place)
        return message[:160]


@case
def fail_open_is_stopped_by_the_backstop_and_without_it_starts_pods_without_the_sidecar():
    rig.base()
    with namespace("open") as place, without_injector(), failing("Ignore"):
        def message():
            said = refused(bare("labelled"), place)
            return "inject.sidecar.beamline.dev" not in said.split("denied")[0] and said
        said = eventually("the policy's refusal", message)
        require("sidecar" in said, said)
        with without_backstop():
            def is_open():
                with contextlib.suppress(ApiError):
                    return has_sidecar(created(bare("labelled"), place)) == 0
            eventually("a pod without the sidecar", is_open)
        return said[:200]


@case
def a_webhook_that_hangs_is_given_up_after_its_timeout():
    rig.base()
    with namespace("hangs") as place, Webhook("hangs", lambda _: None, delay=30) as hanging:
        configured = configuration()
        name = configured["metadata"]["name"]
        kept = configured["webhooks"]
        changed = [{**webhook, "timeoutSeconds": 2, "clientConfig": {"url": hanging.url, "caBundle": rig.b64(hanging.bundle)}} for webhook in kept]
        # The injector would name its own authority again.
        with without_injector():
            merge(CONFIGURATION, name, {"webhooks": changed})
            try:
                eventually("the change", lambda: (refused(bare("waits"), place), hanging.asked)[1])
                begun = time.monotonic()
                message = refused(bare("waits"), place)
                took = time.monotonic() - begun
                require(1.5 < took < 10, f"it took {took:.1f} s")
                require("timeout" in message or "deadline" in message, message)
            finally:
                merge(CONFIGURATION, name, {"webhooks": kept})
        require(has_sidecar(eventually("the injector", lambda: created(bare("later"), place))) == 1, "no sidecar afterwards")
        return f"refused after {took:.1f} s of 2"


def certificate(folder, names, days=None, ended=False):
    """An authority, and a leaf of it: valid, or expired an hour ago."""
    folder.mkdir(exist_ok=True)
    if not (folder / "ca.crt").exists():
        run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "30", "-subj", "/CN=test",
            "-keyout", folder / "ca.key", "-out", folder / "ca.crt")
    (folder / "index.txt").write_text("")
    (folder / "serial").write_text("01")
    (folder / "ca.cnf").write_text(f"""[ca]\ndefault_ca=own\n[own]\ndatabase={folder}/index.txt\nserial={folder}/serial\nnew_certs_dir={folder}
certificate={folder}/ca.crt\nprivate_key={folder}/ca.key\ndefault_md=sha256\npolicy=any\nx509_extensions=ext\nunique_subject=no\n[any]\ncommonName=supplied
[ext]\nsubjectAltName={','.join(name if ':' in name else 'DNS:' + name for name in names)}\nextendedKeyUsage=serverAuth\n""")
    run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=leaf", "-keyout", folder / "tls.key", "-out", folder / "tls.csr")
    now = time.time()

    def stamp(at):
        return time.strftime("%Y%m%d%H%M%SZ", time.gmtime(at))
    start, end = (now - 7200, now - 3600) if ended else (now - 3600, now + 86400)
    run("openssl", "ca", "-batch", "-config", folder / "ca.cnf", "-startdate", stamp(start), "-enddate", stamp(end), "-in", folder / "tls.csr", "-out", folder / "tls.crt", "-notext")
    return {"tls.crt": (folder / "tls.crt").read_text(), "tls.key": (folder / "tls.key").read_text()}


@case
def an_expired_certificate_is_refused_and_the_next_one_is_taken_without_a_restart():
    rig.base()
    with namespace("own-certificate") as place, namespace("expired-apps") as apps:
        folder = rig.DIR / "certificates"
        names = ["second-beamline-sidecar-injector.own-certificate.svc"]
        create({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": "own-tls"},
                "stringData": certificate(folder, names, ended=True)}, place)
        values = merged(INJECTOR, {"certs": {"mode": "existingSecret", "existingSecret": {
            "name": "own-tls", "caBundle": rig.b64((folder / "ca.crt").read_bytes())}}, "replicas": 1, "backstop": {"enabled": False}})
        HELM4.with_values("install", "second", chart("beamline-sidecar-injector"), place, values, "--wait", "--timeout", "120s")
        try:
            # The first injector is not asked in this namespace.
            with without_injector(), failing("Ignore"), without_backstop():
                message = eventually("the refusal", lambda: (lambda said: "expired" in said and said)(refused(bare("one"), apps)))
                merge("secrets", "own-tls", {"data": {key: rig.b64(text) for key, text in certificate(folder, names).items()}}, place)
                # The kubelet writes a mounted Secret anew within a minute or so; the injector looks every ten seconds.
                pod = eventually("the new certificate", lambda: created(bare("two"), apps), 180, 1)
                require(has_sidecar(pod) == 1, "no sidecar with the new certificate")
                [second] = [pod for pod in listed("pods", place) if pod["metadata"]["name"].startswith("second-")]
                require(all(part["restartCount"] == 0 for part in second["status"]["containerStatuses"]), "the injector was restarted")
                # Nothing of the API is its to use: no token is mounted.
                require(not [part for part in second["spec"]["volumes"] if "projected" in part], "a token is mounted")
        finally:
            HELM4("uninstall", "second", "--namespace", place, "--wait")
        return message[-120:]


class Creating:
    """Creates pods without a pause, for as long as it is open; every one must have the sidecar."""

    def __init__(self, place, threads=2):
        self.place, self.stopped, self.made, self.bad = place, threading.Event(), 0, []
        self.threads = [threading.Thread(target=self.go, args=(number,)) for number in range(threads)]

    def go(self, number):
        client = rig.Api()
        turn = 0
        while not self.stopped.is_set():
            turn += 1
            try:
                pod = create(bare(f"pod-{number}-{turn}"), self.place, "?dryRun=All", client=client)
                if has_sidecar(pod) != 1:
                    self.bad.append("no sidecar")
            except (ApiError, OSError) as error:
                self.bad.append(str(error))
            self.made += 1
            time.sleep(0.02)

    def __enter__(self):
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_):
        self.stopped.set()
        for thread in self.threads:
            thread.join()


@case
def an_authority_is_rotated_while_pods_are_created_and_none_is_refused():
    """The steps that take a year are made due by the dates in the Secret; the injector does them by itself."""
    rig.base()
    name = f"{INJECTOR_NAME}-cert"

    def state():
        return json.loads(base64.b64decode(get("secrets", name, "beamline")["data"]["state.json"]))

    def change(edit):
        changed = state()
        edit(changed)
        merge("secrets", name, {"data": {"state.json": rig.b64(json.dumps(changed))}}, "beamline")

    with namespace("rotated") as place:
        first = state()
        with Creating(place) as creating:
            # Two months are left: a second authority is made.
            change(lambda now: now["authorities"][0].update(expires=int(time.time()) + 30 * 86400))
            eventually("a second authority", lambda: len(state()["authorities"]) == 2, 60)
            eventually("both in the configuration", lambda: base64.b64decode(configuration()["webhooks"][0]["clientConfig"]["caBundle"]).count(b"BEGIN CERT") == 2, 60)
            time.sleep(12)
            # It was published an hour ago: it signs.
            change(lambda now: now["authorities"][0].update(issued=int(time.time()) - 3700))
            eventually("a certificate of the new authority", lambda: state()["leaf"]["authority"] == state()["authorities"][0]["name"] != first["authorities"][0]["name"], 60)
            time.sleep(12)
            # That was an hour ago: the old authority goes.
            change(lambda now: now["leaf"].update(issued=int(time.time()) - 3700))
            eventually("the end of the old authority", lambda: len(state()["authorities"]) == 1, 60)
            eventually("one in the configuration", lambda: base64.b64decode(configuration()["webhooks"][0]["clientConfig"]["caBundle"]).count(b"BEGIN CERT") == 1, 60)
            time.sleep(12)
        require(not creating.bad, lambda: f"{len(creating.bad)} of {creating.made} pods: {creating.bad[:3]}")
        require(creating.made > 200, f"only {creating.made} pods were created")
        return f"{creating.made} pods, none refused"


@case
def a_secret_that_is_emptied_is_filled_again_and_the_webhook_goes_on():
    rig.base()
    name = f"{INJECTOR_NAME}-cert"
    with namespace("emptied") as place:
        before = get("secrets", name, "beamline")["data"]["ca.crt"]
        rig.api.call("PATCH", rig.path("secrets", "beamline", name), [{"op": "remove", "path": "/data"}], "application/json-patch+json")
        eventually("another authority", lambda: get("secrets", name, "beamline").get("data", {}).get("ca.crt") not in (None, before), 60)
        begun = time.monotonic()
        # A replica that has not looked yet is not trusted for a moment: it looks every ten seconds.
        good = 0
        while good < 30:
            try:
                good = good + 1 if has_sidecar(created(bare("one"), place)) == 1 else 0
            except ApiError:
                good = 0
            require(time.monotonic() - begun < 60, "the webhook did not come back")
            time.sleep(0.05)
        return f"whole again {time.monotonic() - begun:.1f} s after the new authority"


@case
def the_injector_may_do_what_it_needs_and_nothing_else():
    rig.base()
    account = get("deployments", INJECTOR_NAME, "beamline")["spec"]["template"]["spec"]["serviceAccountName"]
    who = f"system:serviceaccount:beamline:{account}"
    said = {place: kubectl("auth", "can-i", "--list", f"--as={who}", "-n", place) for place in ["beamline", "default"]}
    # What every account may: reviews of itself, and what anybody reads.
    rights = {place: [line for line in text.splitlines()[1:] if line.split()[0] not in ("selfsubjectreviews.authentication.k8s.io",
              "selfsubjectaccessreviews.authorization.k8s.io", "selfsubjectrulesreviews.authorization.k8s.io",
              "clustertrustbundles.certificates.k8s.io") and not line.lstrip().startswith("[/")]
              for place, text in said.items()}
    require(len(rights["beamline"]) == 2 and len(rights["default"]) == 1, lambda: json.dumps(rights))
    require(any(line.startswith("secrets") and f"[{INJECTOR_NAME}-cert]" in line and "[get update]" in line for line in rights["beamline"]), lambda: json.dumps(rights))
    # With its own token: the one Secret, and no other.
    token = rig.api.call("POST", f"/api/v1/namespaces/beamline/serviceaccounts/{account}/token",
                         {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}})["status"]["token"]
    own = rig.Api(token)
    own.call("GET", rig.path("secrets", "beamline", f"{INJECTOR_NAME}-cert"))
    for where in ["/api/v1/namespaces/beamline/secrets", "/api/v1/namespaces/default/secrets/x", "/api/v1/pods", "/api/v1/nodes",
                  "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations"]:
        try:
            own.call("GET", where)
        except ApiError as error:
            require(error.code == 403, f"{where}: {error.code}")
        else:
            raise Failed(f"the injector may read {where}")


@case
def replicas_are_killed_while_200_pods_are_created_and_none_is_refused():
    """A process that is killed cannot say so: what the API server had sent it is asked again by the Deployment's controller."""
    rig.base()
    with namespace("killed") as place:
        document = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "many"}, "spec": {
            "replicas": 200, "selector": {"matchLabels": {"app": "router"}}, "template": rig.router_pod()}}
        # They are only to be created: a node that nobody has.
        document["spec"]["template"]["spec"]["nodeSelector"] = {"nowhere": "yes"}
        create(document, place)
        killed = 0
        for pod in injectors() * 2:
            with contextlib.suppress(Failed, OSError, KeyError, IndexError, ValueError):
                fresh = get("pods", pod["metadata"]["name"], "beamline")
                for pid in sum(rig.processes(fresh, "injector").values(), []):
                    os.kill(pid, signal.SIGKILL)
                    killed += 1
            eventually("the injector's next start", lambda: rig.is_ready(get("pods", pod["metadata"]["name"], "beamline")), 60)
        pods = eventually("200 pods", lambda: (lambda found: len(found) == 200 and found)(listed("pods", place)), 180)
        require(all(has_sidecar(pod) == 1 for pod in pods), "a pod has no sidecar")
        require(killed >= 2, f"{killed} processes were killed")
        return f"{killed} processes killed, 200 pods, each with one sidecar"
