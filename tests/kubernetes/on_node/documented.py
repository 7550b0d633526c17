"""What docs/kubernetes.md and examples/k8s/README.md tell a user to type, typed."""

import os
import re

import rig
from rig import (HELM4, IMAGE, PROGRAM, ROOT, ROUTER, case, counts, delete, eventually, get, is_ready, listed, namespace, require,
                 rolled_out, run)

# Where a command of the page is run, in this order; the rest of it are words in capitals.
PAGES = ["docs/kubernetes.md", "examples/k8s/README.md"]


def commands():
    """Of the blocks without a language, with lines that go on put together; and those within lines."""
    found = []
    for page in PAGES:
        text = (ROOT / page).read_text()
        # Every block is read, with its language, so that the end of one is not taken for the beginning of the next.
        for block in [body for language, body in re.findall(r"^```(\w*)\n(.*?)^```$", text, re.S | re.M) if not language]:
            found += [line for line in re.sub(r"\s*\\\n\s*", " ", block).splitlines() if line]
        found += [line for line in re.findall(r"`((?:kubectl|helm|beamline-sidecar inject|make) [^`]+)`", re.sub(r"\n", " ", re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)))]
    return found


# Those that another test runs, or that are only named.
ELSEWHERE = {
    "make test-charts": "a test of its own",
    "make test-k8s": "this one",
    "make k8s-up": "tests/kubernetes/test.sh calls the same script",
    "make k8s-shell": "tests/kubernetes/test.sh calls the same script",
    "make k8s-down": "tests/kubernetes/test.sh calls the same script",
    "make demo-k8s": "runs for itself",
    "helm template heir charts/beamline-heir": "make test-charts",
    "beamline-sidecar inject -f router.yaml": "make test-charts",
    "beamline-sidecar inject -f FILE": "below, with a file",
}


def typed(command, place):
    """With the user's own words in the places of those in capitals."""
    words = {"REGISTRY/beamline-": "localhost/beamline-", "NAMESPACE": place, "NAME-fragment": "injector-beamline-sidecar-injector-fragment",
             "deployment NAME": "deployment router", "beamline-router:1": ROUTER}
    for word, own in words.items():
        command = command.replace(word, own)
    bin_folder = rig.DIR / "user-bin"
    bin_folder.mkdir(exist_ok=True)
    for name, program in [("helm", HELM4.binary), ("kubectl", rig.BIN / "kubectl"), ("beamline-sidecar", PROGRAM)]:
        link = bin_folder / name
        link.unlink(missing_ok=True)
        link.symlink_to(program)
    environment = {**os.environ, "PATH": f"{bin_folder}:{os.environ['PATH']}"}
    # The caller's namespace is that of their context.
    run("kubectl", "config", "set-context", "--current", f"--namespace={place}", env=environment)
    try:
        return run("bash", "-euo", "pipefail", "-c", command, env=environment, cwd=ROOT, timeout=300)
    finally:
        run("kubectl", "config", "set-context", "--current", "--namespace=default", env=environment)


@case
def every_command_of_the_pages_does_what_they_say():
    """In a cluster that has nothing yet: what the other cases use is taken away first."""
    rig.image()
    if "base" in rig.built:
        for release in ["injector", "heir"]:
            HELM4("uninstall", release, "--namespace", "beamline", "--wait")
        rig.gone("beamline")
        del rig.built["base"]
    said, ran = commands(), []
    require(len(said) > 8, f"only {len(said)} commands were found")
    with namespace("user") as place, __import__("crashes").Postgres():
        rig.image()
        rig.create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "beamline", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
        rig.secret("heir-database", "beamline", url=f"postgres://heir@{rig.NODE}/postgres")
        rig.volume("plain")
        # HEIR first: the sidecars of the other commands wait for it.
        order = sorted(said, key=lambda command: (command in ELSEWHERE, not command.startswith("helm install heir")))
        for command in order:
            if command in ELSEWHERE:
                continue
            if command.startswith("kubectl rollout restart"):
                # Of a Deployment of the user's: the one of the plain manifests.
                eventually("the Deployment", lambda: get("deployments", "router", place))
            if command.startswith("helm test"):
                rolled_out("injector-beamline-sidecar-injector", "beamline")
            answer = typed(command, place)
            if "-o json" in command:
                file = rig.DIR / "documented-fragment.json"
                file.write_text(answer)
                injected = run(PROGRAM, "inject", "-f", ROOT / "examples/k8s/router.yaml", "--fragment", file)
                require("beamline-sidecar" in injected, injected)
            ran.append(command)
        unknown = [command for command in ran if "NAME" in command and "NAMESPACE" not in command and "NAME:" not in command and "NAME-" not in command and "deployment NAME" not in command]
        require(not unknown, f"these have words that nobody filled: {unknown}")
        # HEIR of the chart has no policy yet, and the plain one's claim is bound: both answer.
        eventually("HEIR of the plain manifests", lambda: is_ready(get("pods", "heir-0", place)), 120)
        eventually("HEIR of the chart", lambda: len([pod for pod in listed("pods", "beamline", "app.kubernetes.io/component=store") if is_ready(pod)]) >= 1, 120)
        for release in ["injector", "heir"]:
            HELM4("uninstall", release, "--namespace", "beamline", "--wait")
        rig.gone("beamline")
    delete("persistentvolumes", "plain")
    return f"{len(ran)} commands"


@case
def the_plain_manifests_run_under_restricted_pod_security():
    rig.image()
    with namespace("plain", {"sidecar.beamline.dev/injection": "disabled"}) as place:
        rig.volume("plain-2")
        for name in ["heir.yaml", "router-with-sidecar.yaml"]:
            text = (ROOT / "examples/k8s" / name).read_text().replace("image: beamline-router:1", f"image: {ROUTER}").replace("image: beamline-sidecar:", f"image: {IMAGE}:")
            rig.kubectl("apply", "-n", place, "-f", "-", input=text)
        eventually("HEIR", lambda: is_ready(get("pods", "heir-0", place)), 90)
        rig.heir("PUT", "/api/v1/policies/acme/chat", rig.POLICY, namespace=place)
        rolled_out("router", place)
        for pod in listed("pods", place, "app=router"):
            eventually("a Router's good answers", lambda: counts(pod)["lookups"] > 20)
    delete("persistentvolumes", "plain-2")
