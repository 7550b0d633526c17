"""What the cases on a node have in common: the API server, Helm, images, processes of containers, and who counts."""

import base64
import contextlib
import copy
import http.client
import json
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KUBERNETES = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(KUBERNETES))

import charts  # noqa: E402  (the charts' own tests)
import yaml  # noqa: E402  (by charts.py's path)

ROOT = charts.ROOT
BIN = charts.TOOLS / "bin"
NODE = "10.244.255.1"
DIR = Path(os.environ.get("BEAMLINE_NODE", "/var/tmp/beamline-node"))
PROGRAM = Path(os.environ.get("BEAMLINE_PROGRAM", Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release/beamline-sidecar"))
VERSION = "0.1.0"
IMAGE = "localhost/beamline-sidecar"
ROUTER = "localhost/router:1"
COMPONENTS = ROOT / "wasm-extensions/target/components"
POLICY = json.loads((ROOT / "examples/policies/acme/chat.json").read_text())

cases = []


def case(function):
    """A named test; its name is what is shown."""
    cases.append(function)
    return function


class Failed(AssertionError):
    pass


class Skipped(Exception):
    """What this machine cannot run, with the reason."""


def require(condition, message):
    if not condition:
        raise Failed(message() if callable(message) else str(message))


def run(*command, check=True, timeout=600, **options):
    ran = subprocess.run([str(part) for part in command], capture_output=True, text=True, timeout=timeout, **options)
    if check and ran.returncode:
        raise Failed(f"{' '.join(map(str, command))}\n{ran.stdout}{ran.stderr}")
    return ran if not check else ran.stdout


def kubectl(*arguments, **options):
    return run(BIN / "kubectl", *arguments, **options)


def eventually(what, probe, seconds=60, pause=0.2):
    """Waits until the probe gives something true, and gives that."""
    end, last = time.monotonic() + seconds, None
    while True:
        try:
            value = probe()
            if value:
                return value
            last = value
        except (Failed, OSError, KeyError, IndexError, http.client.HTTPException, ApiError) as error:
            last = error
        if time.monotonic() > end:
            raise Failed(f"{what} did not come within {seconds} s; the last was {last!r}")
        time.sleep(pause)


# The API server.


class ApiError(Exception):
    def __init__(self, code, body):
        self.code, self.body = code, body
        try:
            self.message = json.loads(body)["message"]
        except (ValueError, KeyError):
            self.message = body
        super().__init__(f"{code}: {self.message}")


class Api:
    """The API server as the administrator, or with a token; one connection for each thread."""

    def __init__(self, token=None):
        self.token = token
        self.context = ssl.create_default_context(cafile=DIR / "pki/ca.crt")
        if token is None:
            self.context.load_cert_chain(DIR / "pki/admin.crt", DIR / "pki/admin.key")
        self.local = threading.local()
        self.warnings = []

    def call(self, method, path, body=None, content="application/json", raw=False):
        headers = {"content-type": content}
        if self.token:
            headers["authorization"] = f"Bearer {self.token}"
        data = None if body is None else json.dumps(body).encode()
        for attempt in (1, 2):
            connection = getattr(self.local, "connection", None)
            if connection is None:
                connection = self.local.connection = http.client.HTTPSConnection("127.0.0.1", 6443, context=self.context, timeout=120)
            try:
                connection.request(method, path, data, headers)
                answer = connection.getresponse()
                text = answer.read().decode()
                break
            except (OSError, http.client.HTTPException):
                connection.close()
                self.local.connection = None
                if attempt == 2:
                    raise
        self.local.warnings = answer.headers.get_all("warning") or []
        if answer.status >= 300:
            raise ApiError(answer.status, text)
        return text if raw else json.loads(text)

    def last_warnings(self):
        return " ".join(self.local.warnings)


api = None


def path(kind, namespace=None, name=None):
    groups = {
        "pods": "api/v1", "secrets": "api/v1", "configmaps": "api/v1", "namespaces": "api/v1", "services": "api/v1", "events": "api/v1",
        "nodes": "api/v1", "persistentvolumes": "api/v1", "persistentvolumeclaims": "api/v1", "serviceaccounts": "api/v1",
        "deployments": "apis/apps/v1", "statefulsets": "apis/apps/v1", "replicasets": "apis/apps/v1", "jobs": "apis/batch/v1",
        "endpointslices": "apis/discovery.k8s.io/v1",
        "mutatingwebhookconfigurations": "apis/admissionregistration.k8s.io/v1",
        "validatingadmissionpolicies": "apis/admissionregistration.k8s.io/v1",
        "storageclasses": "apis/storage.k8s.io/v1",
    }
    parts = ["", groups[kind], *(["namespaces", namespace] if namespace else []), kind, *([name] if name else [])]
    return "/".join(parts)


def get(kind, name, namespace=None):
    return api.call("GET", path(kind, namespace, name))


def listed(kind, namespace=None, selector=None):
    query = f"?labelSelector={urllib.parse.quote(selector)}" if selector else ""
    return api.call("GET", path(kind, namespace) + query)["items"]


PLURALS = {"NetworkPolicy": "networkpolicies"}


def create(document, namespace=None, query="", client=None):
    kind = document["kind"].lower() + "s"
    return (client or api).call("POST", path(kind, namespace) + query, document)


def merge(kind, name, patch, namespace=None):
    return api.call("PATCH", path(kind, namespace, name), patch, "application/merge-patch+json")


def delete(kind, name, namespace=None, grace=None, missing_ok=True):
    query = "" if grace is None else f"?gracePeriodSeconds={grace}"
    try:
        return api.call("DELETE", path(kind, namespace, name) + query)
    except ApiError as error:
        if error.code != 404 or not missing_ok:
            raise


def refused(document, namespace, client=None):
    """The message with which a pod is refused."""
    try:
        created = create(document, namespace, client=client)
    except ApiError as error:
        return error.message
    delete(document["kind"].lower() + "s", created["metadata"]["name"], namespace, grace=0)
    raise Failed(f"{document['kind']} {created['metadata']['name']} was not refused: {json.dumps(created['spec'])[:400]}")


@contextlib.contextmanager
def namespace(name, labels=None, restricted=True):
    labels = dict(labels or {})
    if restricted:
        labels["pod-security.kubernetes.io/enforce"] = "restricted"
    create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
    eventually("the default service account", lambda: get("serviceaccounts", "default", name))
    try:
        yield name
    finally:
        gone(name)


def gone(name):
    """Removes a namespace, with pods that are told to end at once."""
    with contextlib.suppress(ApiError):
        for kind in ["deployments", "statefulsets", "jobs"]:
            for found in listed(kind, name):
                delete(kind, found["metadata"]["name"], name)
        for pod in listed("pods", name):
            delete("pods", pod["metadata"]["name"], name, grace=1)
    delete("namespaces", name)

    def is_gone():
        try:
            found = get("namespaces", name)
        except ApiError as error:
            return error.code == 404
        for pod in listed("pods", name):
            if pod["metadata"].get("finalizers"):
                merge("pods", pod["metadata"]["name"], {"metadata": {"finalizers": None}}, name)
            if "deletionTimestamp" in pod["metadata"]:
                continue
            delete("pods", pod["metadata"]["name"], name, grace=1)
        return not found

    eventually(f"the end of the namespace {name}", is_gone, 120)


def secret(name, namespace, **data):
    create({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": data}, namespace)


# Images.

built = {}


def image():
    """The project's own image, on the node; built once."""
    if "image" not in built:
        tag = f"{IMAGE}:{VERSION}"
        run(KUBERNETES / "image.sh", PROGRAM, tag, timeout=600)
        run(KUBERNETES / "node.sh", "give", tag, timeout=600)
        built["image"] = tag
    return built["image"]


def also(tag):
    """The same image under another tag, as another version would be."""
    run("buildah", "tag", image(), tag)
    run(KUBERNETES / "node.sh", "give", tag, timeout=600)
    return tag


def build(tag, files, dockerfile):
    """An image of these files, on the node."""
    with tempfile.TemporaryDirectory() as context:
        for name, content in files.items():
            target = Path(context) / name
            target.parent.mkdir(parents=True, exist_ok=True)
            if isinstance(content, Path):
                shutil.copy(content, target)
            else:
                target.write_bytes(content if isinstance(content, bytes) else content.encode())
        (Path(context) / "Dockerfile").write_text(dockerfile)
        run(KUBERNETES / "node.sh", "load", tag, context, timeout=600)
    return tag


# Helm.


class Helm:
    def __init__(self, binary):
        self.binary = binary
        self.name = binary.name

    def __call__(self, *arguments, **options):
        return run(self.binary, *arguments, **options)

    def with_values(self, verb, release, chart, namespace, values, *more, **options):
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(values, file)
            file.flush()
            return self(verb, release, chart, "--namespace", namespace, "--values", file.name, *more, **options)

    def install(self, release, chart, namespace, values, *more, **options):
        return self.with_values("install", release, chart, namespace, values, "--wait", "--timeout", "180s", *more, **options)

    def upgrade(self, release, chart, namespace, values, *more, **options):
        return self.with_values("upgrade", release, chart, namespace, values, "--wait", "--timeout", "180s", *more, **options)


HELM3, HELM4 = Helm(BIN / "helm3"), Helm(BIN / "helm4")
CHARTS = {}


def chart(name):
    if not CHARTS:
        folder = Path(tempfile.mkdtemp(prefix="beamline-charts-"))
        built["charts"] = folder
        CHARTS.update(charts.own_copy(folder))
    return CHARTS[name]


OWN_IMAGE = {"repository": IMAGE, "pullPolicy": "Never"}
INJECTOR = {"sidecar": {"image": OWN_IMAGE, "store": {"url": "http://heir.beamline:8090"}}, "lameDuckSeconds": 3}


def merged(one, other):
    one = copy.deepcopy(one)
    for key, value in other.items():
        one[key] = merged(one[key], value) if isinstance(value, dict) and isinstance(one.get(key), dict) else value
    return one


# HEIR and the injector, which most cases need: there once, in the namespace `beamline`.


def volume(name, capacity="1Gi"):
    """A directory of the node, for a claim of the StatefulSet: the node has no provisioner."""
    folder = DIR / "volumes" / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    delete("persistentvolumes", name)
    eventually("the end of the old volume", lambda: all(found["metadata"]["name"] != name for found in listed("persistentvolumes")))
    create({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": name}, "spec": {
        "capacity": {"storage": capacity}, "accessModes": ["ReadWriteOnce"], "persistentVolumeReclaimPolicy": "Retain",
        "local": {"path": str(folder)},
        "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [
            {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node0"]}]}]}}}})
    return folder


def base():
    """HEIR on SQLite and the injector, by their charts."""
    if "base" in built:
        return
    image()
    # A node of `make k8s-up` may have them from the run before.
    if all(found["metadata"]["name"] != "beamline" for found in listed("namespaces")):
        create({"apiVersion": "v1", "kind": "Namespace", "metadata": {
            "name": "beamline", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
        volume("heir")
    HELM4.upgrade("heir", chart("beamline-heir"), "beamline", {"image": OWN_IMAGE}, "--install")
    put_policy()
    HELM4.upgrade("injector", chart("beamline-sidecar-injector"), "beamline", INJECTOR, "--install")
    built["base"] = True


def service(name, namespace="beamline"):
    return get("services", name, namespace)["spec"]["clusterIP"]


def http_call(method, url, body=None, headers=None, timeout=10):
    """Status, headers and body; also of what is no success."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json", **(headers or {})}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def heir(method, where, body=None, release="heir", namespace="beamline"):
    # kube-proxy hears of a new address a moment after the pod is ready.
    status, _, answer = eventually("HEIR behind its Service", lambda: http_call(method, f"http://{service(release, namespace)}:8090{where}", body), 30)
    require(status < 300, lambda: f"HEIR answered {method} {where} with {status}: {answer[:300]}")
    return answer


def put_policy(tenant="acme", name="chat", **changes):
    heir("PUT", f"/api/v1/policies/{tenant}/{name}", {**POLICY, **changes})


def extension(ident, kind, component, config=None):
    """Registers an extension in HEIR; its module is put there first."""
    import hashlib
    module = (COMPONENTS / component).read_bytes()
    digest = hashlib.sha256(module).hexdigest()
    heir("PUT", f"/api/v1/modules/{digest}", module)
    heir("PUT", f"/api/v1/extensions/{ident}", {
        "id": ident, "type": kind, "subject": f"beamline.ext.{kind}.{ident}.v1", "module": f"heir:sha256/{digest}", "config": config or {}})
    return digest


# Pods like the Router's.


def router_pod(environment=None, labels=None, annotations=None, drain=1, grace=30):
    variables = {"ROUTER_DRAIN_SECONDS": drain, "ROUTER_COLLECTOR": f"http://{NODE}:7070/", **(environment or {})}
    return {
        "metadata": {"labels": {"app": "router", "sidecar.beamline.dev/inject": "enabled", **(labels or {})}, "annotations": annotations or {}},
        "spec": {
            "terminationGracePeriodSeconds": grace, "automountServiceAccountToken": False,
            "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "router", "image": ROUTER, "imagePullPolicy": "Never",
                "env": [{"name": name, "value": str(value)} for name, value in variables.items()],
                "ports": [{"containerPort": 9000}],
                "readinessProbe": {"httpGet": {"path": "/ready", "port": 9000}, "periodSeconds": 1},
                "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "128Mi"}},
                "securityContext": {"runAsUser": 1000, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    }


def pod(name, **how):
    made = router_pod(**how)
    return {"apiVersion": "v1", "kind": "Pod", **made, "metadata": {**made["metadata"], "name": name}}


def deployment(name, replicas=1, **how):
    template = router_pod(**how)
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "router"}}, "template": template,
        "strategy": {"rollingUpdate": {"maxUnavailable": 0, "maxSurge": 1}}}}


def bare(name, labels=None, annotations=None, **spec):
    """A pod that is not meant to do anything but exist."""
    made = pod(name, labels=labels, annotations=annotations)
    made["spec"].update(spec)
    return made


def is_ready(pod):
    return any(part["type"] == "Ready" and part["status"] == "True" for part in pod.get("status", {}).get("conditions", []))


def ready_pod(name, namespace, seconds=60):
    return eventually(f"the pod {name}", lambda: (lambda found: is_ready(found) and found)(get("pods", name, namespace)), seconds)


def rolled_out(name, namespace, seconds=120):
    def is_out():
        found = get("deployments", name, namespace)
        status, wanted = found.get("status", {}), found["spec"]["replicas"]
        return (status.get("observedGeneration", 0) >= found["metadata"]["generation"] and status.get("updatedReplicas", 0) == wanted
                and status.get("availableReplicas", 0) == wanted and status.get("replicas", 0) == wanted)
    eventually(f"the rollout of {name}", is_out, seconds)


def containers(pod):
    """Statuses by name, of all kinds."""
    status = pod.get("status", {})
    return {part["name"]: part for part in status.get("initContainerStatuses", []) + status.get("containerStatuses", [])}


def sidecar_of(pod):
    [found] = [part for part in pod["spec"].get("initContainers", []) + pod["spec"]["containers"] if part["name"] == "beamline-sidecar"]
    return found


def counts(pod):
    _, _, body = http_call("GET", f"http://{pod['status']['podIP']}:9000/counts")
    return json.loads(body)


def metrics(address, port=9901):
    _, _, body = http_call("GET", f"http://{address}:{port}/metrics")
    return body.decode()


class Collector:
    """Gets what each router counted, at its start and at its end."""

    def __init__(self):
        self.begun, self.ended = {}, {}
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                counts = json.loads(self.rfile.read(int(self.headers["content-length"])))
                (collector.ended if counts["final"] else collector.begun)[counts["pod"]] = counts
                self.send_response(204)
                self.end_headers()

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer((NODE, 7070), Handler)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def forget(self):
        self.begun.clear()
        self.ended.clear()


collector = None


def nothing_failed(running, at_least=1):
    """Adds up what all routers counted, those that ended and those that run: every one that began must have told."""
    living = {pod["metadata"]["name"]: counts(pod) for pod in running if pod["status"].get("podIP")}
    silent = set(collector.begun) - set(collector.ended) - set(living)
    require(not silent, f"routers that never told their counts: {silent}")
    all_of_them = list(collector.ended.values()) + [living[name] for name in living if name not in collector.ended]
    failures = [(one["pod"], failure) for one in all_of_them for failure in one["failures"] or []]
    calls = sum(one["lookups"] + one["decisions"] for one in all_of_them)
    require(not failures, lambda: f"{len(failures)} of {calls} calls failed: {failures[:5]}")
    require(calls >= at_least, f"only {calls} calls were made")
    worst = max(one["longest_gap_ms"] for one in all_of_them)
    return f"{calls} calls of {len(all_of_them)} pods, 0 failed, longest gap {worst} ms"


# Processes of a container, seen from the node.


def processes(pod, container="beamline-sidecar"):
    """Pids by the name of their program."""
    ident = containers(pod)[container]["containerID"].split("//")[1]
    found = {}
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        with contextlib.suppress(OSError):
            if ident in (entry / "cgroup").read_text():
                # The worker is the program with `run`, the supervisor its own.
                name = (entry / "cmdline").read_bytes().split(b"\0")[0].decode().rsplit("/", 1)[-1]
                found.setdefault(name, []).append(int(entry.name))
    return found


def finished(pod_status):
    from datetime import datetime
    return datetime.fromisoformat(pod_status["state"]["terminated"]["finishedAt"])


def b64(data):
    return base64.b64encode(data if isinstance(data, bytes) else data.encode()).decode()


def start_common():
    global api, collector
    api, collector = Api(), Collector()


def end_common():
    if "charts" in built:
        shutil.rmtree(built["charts"], ignore_errors=True)


def inside(found, url, method="GET", body=None, container="beamline-sidecar"):
    """A call from within the pod, as its containers make it; the admin's pages are for such only."""
    pid = next(iter(sum(processes(found, container).values(), [])))
    more = ["-d", json.dumps(body), "-H", "content-type: application/json"] if body is not None else []
    text = run("nsenter", "-t", pid, "-n", "curl", "-s", "-X", method, "-w", "\n%{http_code}", *more, url)
    answer, _, status = text.rpartition("\n")
    return int(status), answer


def decide(found, text, policy="guarded"):
    status, answer = inside(found, "http://127.0.0.1:8080/api/v1/decide", "POST", {
        "version": "1", "request_id": "r-1", "tenant_id": "acme", "policy_id": policy, "task": {"type": "chat", "payload": {"text": text}}})
    return status, json.loads(answer)
