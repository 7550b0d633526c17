#!/usr/bin/env python3
"""Checks the charts: `make test-charts`. With --write, writes what is generated of them instead of comparing it.

Every chart is linted and rendered by Helm 3 and 4, for several versions of Kubernetes and every ci/*-values.yaml, twice, and
validated strictly against the schemas of Kubernetes. The three ways into a pod (a chart that includes the library, the webhook,
the command) must give the same pod."""

import base64
import json
import os
import re
import shutil
import signal
import ssl
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = ROOT / ".tools/kubernetes"
sys.path.insert(0, str(TOOLS / "python"))

import yaml  # noqa: E402  (installed by tests/setup.sh, beside kubernetes-validate)

HELMS = [TOOLS / "bin/helm3", TOOLS / "bin/helm4"]
VERSIONS = ["1.29.0", "1.33.0", "1.36.0", "1.37.0"]
FRAGMENT = ROOT / "src/inject/default-fragment.json"
# Their definitions come with the programs that serve them.
FOREIGN = ("monitoring.coreos.com/", "cert-manager.io/")

counts = {"rendered": 0, "validated": 0, "refused": 0, "same pods": 0, "unit tests": 0}
failures = []


def fail(message):
    failures.append(message)
    print(f"charts: {message}", file=sys.stderr)


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def checked(*command, **options):
    ran = run(*command, **options)
    if ran.returncode:
        raise SystemExit(f"charts: {' '.join(map(str, command))}\n{ran.stdout}{ran.stderr}")
    return ran.stdout


def own_copy(folder):
    """The charts with their dependencies inside, as `helm dependency update` puts them there."""
    shutil.copytree(ROOT / "charts", folder / "charts", ignore=shutil.ignore_patterns("*.tgz", "Chart.lock"))
    shutil.copytree(ROOT / "examples/router-with-include", folder / "examples/router-with-include")
    charts = sorted(path.parent for path in folder.glob("*/*/Chart.yaml"))
    for chart in charts:
        if "dependencies:" in (chart / "Chart.yaml").read_text():
            checked(HELMS[-1], "dependency", "update", chart)
    return {chart.name: chart for chart in charts}


def lowest_version(values):
    """What the first line of a values file says: `# Kubernetes 1.33`."""
    found = re.match(r"# Kubernetes (\d+)\.(\d+)", values.read_text())
    return tuple(map(int, found.groups())) if found else (0, 0)


def render(helm, chart, values, version, *more):
    return run(helm, "template", "demo", chart, "--namespace", "beamline", "--values", values, "--kube-version", version, *more)


def documents(text):
    return [document for document in yaml.safe_load_all(text) if document]


def objects(text):
    """Without their order: Helm 3 and Helm 4 put kinds that they do not know in different ones."""
    return sorted(documents(text), key=lambda part: (part["kind"], part["metadata"]["name"]))


def render_all(charts, folder):
    """Lints and renders everything; returns the files to validate, by version of Kubernetes."""
    files = {version: [] for version in VERSIONS}
    for name, chart in charts.items():
        if name == "beamline-sidecar-lib":
            continue
        for values in sorted((chart / "ci").glob("*-values.yaml")):
            for helm in HELMS:
                linted = run(helm, "lint", "--strict", chart, "--values", values, "--kube-version", VERSIONS[-1])
                if linted.returncode:
                    fail(f"{helm.name} lint {name} {values.name}:\n{linted.stdout}{linted.stderr}")
            for version in VERSIONS:
                if tuple(map(int, version.split(".")[:2])) < lowest_version(values):
                    if not render(HELMS[-1], chart, values, version).returncode:
                        fail(f"{name} {values.name} is rendered for Kubernetes {version}, which cannot run it")
                    continue
                texts = []
                for helm in [*HELMS, HELMS[0]]:
                    rendered = render(helm, chart, values, version)
                    if rendered.returncode:
                        fail(f"{helm.name} template {name} {values.name} {version}:\n{rendered.stderr}")
                    texts.append(rendered.stdout)
                counts["rendered"] += 1
                if texts[0] != texts[2]:
                    fail(f"{name} {values.name} {version}: two renderings differ")
                if objects(texts[0]) != objects(texts[1]):
                    fail(f"{name} {values.name} {version}: Helm 3 and Helm 4 differ")
                own = [part for part in documents(texts[0]) if not part["apiVersion"].startswith(FOREIGN)]
                file = folder / f"{name}-{values.stem}-{version}.yaml"
                file.write_text(yaml.safe_dump_all(own))
                files[version].append(file)
    return files


def validate(files):
    environment = {**os.environ, "PYTHONPATH": str(TOOLS / "python")}
    for version, paths in files.items():
        command = [sys.executable, TOOLS / "python/bin/kubernetes-validate", "--strict", "-k", version, *paths]
        ran = run(*command, env=environment)
        if ran.returncode:
            fail(f"Kubernetes {version}:\n{ran.stdout}{ran.stderr}")
        counts["validated"] += len(paths)


def refuse(charts):
    """Values that are refused, each with a part of the message that says why, in its first line."""
    names = {"injector": "beamline-sidecar-injector", "heir": "beamline-heir", "router": "router-with-include"}
    for values in sorted((ROOT / "tests/kubernetes/refused").glob("*.yaml")):
        wanted = values.read_text().splitlines()[0].removeprefix("# ")
        chart = charts[names[values.name.split("-")[0]]]
        for helm in HELMS:
            rendered = render(helm, chart, values, VERSIONS[-1])
            if not rendered.returncode or wanted not in rendered.stderr:
                fail(f"{helm.name}: {values.name} is not refused with {wanted!r}:\n{rendered.stderr}")
        counts["refused"] += 1


def compare(charts, write):
    """What is written in two places."""
    version = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    library = charts["beamline-sidecar-lib"]
    if f"-}}}}{version}{{{{-" not in (library / "templates/_version.tpl").read_text():
        fail(f"the version of the library's templates is not {version}")
    for name in ["beamline-sidecar-lib", "beamline-sidecar-injector", "beamline-heir"]:
        chart = yaml.safe_load((charts[name] / "Chart.yaml").read_text())
        if (chart["version"], chart["appVersion"]) != (version, version):
            fail(f"the version of {name} is not {version}")
    schemas = {name: json.loads((chart / "values.schema.json").read_text()) for name, chart in charts.items() if (chart / "values.schema.json").exists()}
    own = {key: value for key, value in schemas["beamline-sidecar-lib"]["properties"].items() if key != "global"}
    if own != schemas["beamline-sidecar-injector"]["properties"]["sidecar"]["properties"]:
        fail("the injector's schema says something else of `sidecar` than the library's schema")

    metrics = set(re.findall(r"beamline_sidecar_\w+|router_\w+_total", "".join(path.read_text() for chart in charts.values() for path in chart.glob("templates/*.yaml"))))
    told = (ROOT / "docs/metrics.md").read_text()
    for metric in sorted(metrics):
        if f"`{metric}`" not in told:
            fail(f"a chart names the metric {metric}, which docs/metrics.md has not")

    if fragment(charts, None) != FRAGMENT.read_text().strip():
        if write:
            FRAGMENT.write_text(fragment(charts, None) + "\n")
        else:
            fail("src/inject/default-fragment.json is not what the library renders: tests/kubernetes/charts.py --write")


def fragment(charts, values):
    more = ["--values", values] if values else []
    text = checked(HELMS[-1], "template", "demo", charts["beamline-sidecar-injector"], "--show-only", "templates/fragment-configmap.yaml", "--kube-version", VERSIONS[-1], *more)
    return documents(text)[0]["data"]["fragment.json"]


def document_docs(charts, write):
    """READMEs by helm-docs."""
    helm_docs = TOOLS / "bin/helm-docs"
    for name in ["beamline-sidecar-lib", "beamline-sidecar-injector", "beamline-heir"]:
        checked(helm_docs, "--chart-search-root", charts[name], "--sort-values-order", "file", "--log-level", "warning")
        made, there = charts[name] / "README.md", ROOT / "charts" / name / "README.md"
        if write:
            shutil.copy(made, there)
        elif not there.exists() or made.read_text() != there.read_text():
            fail(f"charts/{name}/README.md is out of date: tests/kubernetes/charts.py --write")


def manifests(charts, program, write):
    """The plain manifests of examples/k8s."""
    folder = ROOT / "examples/k8s"
    heir = checked(HELMS[-1], "template", "heir", charts["beamline-heir"], "--kube-version", VERSIONS[-1])
    kept = [part for part in documents(heir) if "helm.sh/hook" not in part["metadata"].get("annotations", {})]
    for part in kept:
        # There is no chart where they are used, and the namespace is the one that `kubectl apply` has.
        part["metadata"].pop("namespace", None)
        for labels in [part["metadata"]["labels"], *([part["spec"]["template"]["metadata"]["labels"]] if "template" in part["spec"] else [])]:
            labels.pop("helm.sh/chart", None)
            labels.pop("app.kubernetes.io/managed-by", None)
    made = {
        "heir.yaml": yaml.safe_dump_all(kept, sort_keys=False),
        "router-with-sidecar.yaml": checked(program, "inject", "-f", folder / "router.yaml"),
    }
    for name, text in made.items():
        text = f"# Made by tests/kubernetes/charts.py --write: see README.md.\n{text.removeprefix('---').lstrip()}"
        if write:
            (folder / name).write_text(text)
        elif not (folder / name).exists() or (folder / name).read_text() != text:
            fail(f"examples/k8s/{name} is out of date: tests/kubernetes/charts.py --write")


def unit_tests(charts):
    for name, chart in charts.items():
        if not (chart / "tests").is_dir():
            continue
        ran = run(TOOLS / "bin/helm-unittest", "--strict", chart)
        found = re.search(r"Tests:\s+(\d+) passed", ran.stdout)
        counts["unit tests"] += int(found.group(1)) if found else 0
        if ran.returncode or not found:
            fail(f"helm-unittest {name}:\n{ran.stdout}{ran.stderr}")


def without_sidecar(deployment):
    """The Deployment as it would be without the include."""
    deployment = json.loads(json.dumps(deployment))
    template = deployment["spec"]["template"]
    spec = template["spec"]
    for name in ["initContainers", "containers", "volumes"]:
        spec[name] = [part for part in spec.get(name) or [] if not part["name"].startswith("beamline-sidecar")]
        if not spec[name]:
            del spec[name]
    # What the library adds beside what has its name; the example has none of its own.
    spec.pop("imagePullSecrets", None)
    template["metadata"]["annotations"] = {"kubectl.kubernetes.io/default-container": "router"}
    template["metadata"]["labels"]["sidecar.beamline.dev/inject"] = "enabled"
    return deployment


def applied(pod, patch):
    """A patch that only adds."""
    for operation in patch:
        assert operation["op"] == "add", operation
        *parents, last = [name.replace("~1", "/").replace("~0", "~") for name in operation["path"].split("/")[1:]]
        place = pod
        for name in parents:
            place = place[int(name) if isinstance(place, list) else name]
        if isinstance(place, list):
            place.insert(len(place) if last == "-" else int(last), operation["value"])
        else:
            place[last] = operation["value"]
    return pod


class Webhook:
    """`beamline-sidecar inject-webhook`, as the API server has it."""

    def __init__(self, program, fragment_file, folder):
        checked("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1",
                "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", folder / "tls.key", "-out", folder / "tls.crt")
        self.context = ssl.create_default_context(cafile=folder / "tls.crt")
        self.process = subprocess.Popen(
            [program, "inject-webhook", "--listen=127.0.0.1:0", "--admin-listen=127.0.0.1:0", f"--fragment={fragment_file}",
             f"--tls-cert={folder / 'tls.crt'}", f"--tls-key={folder / 'tls.key'}", "--lame-duck-seconds=0"],
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for line in self.process.stdout:
            listening = re.search(r'"listen":"127\.0\.0\.1:(\d+)"', line)
            if listening:
                self.port = listening.group(1)
                return
        raise SystemExit("charts: the webhook did not start")

    def review(self, pod):
        body = {"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": {
            "uid": "1", "kind": {"group": "", "version": "v1", "kind": "Pod"}, "operation": "CREATE", "object": pod}}
        request = urllib.request.Request(f"https://localhost:{self.port}/inject", json.dumps(body).encode(), {"content-type": "application/json"})
        with urllib.request.urlopen(request, context=self.context, timeout=30) as answer:
            response = json.load(answer)["response"]
        assert response["allowed"], response
        return applied(pod, json.loads(base64.b64decode(response["patch"])))

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def same_pod(charts, folder, program):
    """The include, the command and the webhook, with the same values."""
    chart = charts["router-with-include"]
    for values in sorted((chart / "ci").glob("*-values.yaml")):
        settings = yaml.safe_load(values.read_text()) or {}
        for_injector = folder / "injector-values.yaml"
        defaults = yaml.safe_load((chart / "values.yaml").read_text())["sidecar"]
        merged = {**defaults, **settings.get("sidecar", {})}
        for_injector.write_text(yaml.safe_dump({"sidecar": merged}))
        rendered = documents(checked(HELMS[-1], "template", "demo", chart, "--values", values, "--kube-version", VERSIONS[-1]))
        [included] = [part for part in rendered if part["kind"] == "Deployment"]
        bare = without_sidecar(included)
        wanted = json.loads(json.dumps(included["spec"]["template"]))
        wanted["metadata"]["labels"]["sidecar.beamline.dev/inject"] = "enabled"

        file = folder / "fragment.json"
        file.write_text(fragment(charts, for_injector))
        command = checked(program, "inject", "-f", "-", "--fragment", file, input=yaml.safe_dump(bare))
        by_command = documents(command)[0]["spec"]["template"]
        webhook = Webhook(program, file, folder)
        try:
            by_webhook = webhook.review(json.loads(json.dumps(bare["spec"]["template"])))
        finally:
            webhook.stop()
        for way, pod in [("the command", by_command), ("the webhook", by_webhook)]:
            if pod != wanted:
                fail(f"{values.name}: {way} gives another pod than the include:\n{json.dumps(pod, indent=1)}\n{json.dumps(wanted, indent=1)}")
        counts["same pods"] += 1


def main():
    write = "--write" in sys.argv
    begun = time.monotonic()
    target = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        charts = own_copy(folder)
        document_docs(charts, write)
        compare(charts, write)
        manifests(charts, target / "debug/beamline-sidecar", write)
        if write:
            return
        (folder / "rendered").mkdir()
        validate(render_all(charts, folder / "rendered"))
        refuse(charts)
        unit_tests(charts)
        same_pod(charts, folder, target / "debug/beamline-sidecar")
    told = ", ".join(f"{count} {what}" for what, count in counts.items())
    print(f"charts: {told}, {len(failures)} failed, {time.monotonic() - begun:.0f} s")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
