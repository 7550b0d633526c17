#!/usr/bin/env python3
"""Shows everything at work on a node: `make demo-k8s`. HEIR by its chart, the injector, a Router, policies and extensions that
change, processes that are killed; every step is done for real, and the demonstration ends early if one fails."""

import json
import os
import signal
import time

import rig
from rig import HELM4, INJECTOR, OWN_IMAGE, chart, counts, create, decide, deployment, eventually, get, is_ready, listed, namespace, put_policy

step = 1


def title(text):
    global step
    step += 1
    print(f"\n{step}. {text}", flush=True)


def show(text):
    print("\n".join(f"   {line}" for line in text.splitlines()), flush=True)


def kubectl(*arguments):
    show(f"$ kubectl {' '.join(arguments)}\n{rig.kubectl(*arguments)}")


def routers():
    return [pod for pod in listed("pods", "apps", "app=router") if is_ready(pod)]


def told():
    seen = [counts(pod) for pod in routers()] + [one for one in rig.collector.ended.values()]
    calls = sum(one["lookups"] + one["decisions"] for one in seen)
    show(f"the Routers' own counts: {calls} lookups and decisions, {sum(one['failed'] for one in seen)} failed, "
         f"longest gap {max(one['longest_gap_ms'] for one in seen)} ms")


def main():
    rig.start_common()
    title("The image, built by buildah from the Dockerfile; HEIR and the injector, by their charts")
    rig.image()
    create({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "beamline", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}})
    rig.volume("heir")
    show("$ helm install heir charts/beamline-heir --wait")
    HELM4.install("heir", chart("beamline-heir"), "beamline", {"image": OWN_IMAGE})
    show("$ helm install injector charts/beamline-sidecar-injector --wait; helm test injector")
    HELM4.install("injector", chart("beamline-sidecar-injector"), "beamline", INJECTOR)
    HELM4("test", "injector", "--namespace", "beamline")
    put_policy()
    kubectl("get", "pods", "-n", "beamline")

    with namespace("apps"):
        title("Three Routers in a namespace of restricted Pod Security; one label asks for the sidecar")
        create(deployment("router", 3, drain=2), "apps")
        eventually("three Routers", lambda: len(routers()) == 3, 120)
        kubectl("get", "pods", "-n", "apps")
        told()

        title("A policy is changed in HEIR")
        begun = time.monotonic()
        put_policy(metadata={"mark": "changed"})
        eventually("the change", lambda: all(json.loads(counts(pod)["policy"]).get("metadata") for pod in routers()), 30, 0.05)
        show(f"every Router has it after {time.monotonic() - begun:.2f} s")
        told()

        title("An extension is put into HEIR, a guard against personal data; a policy names it")
        rig.extension("pii_guard", "validator", "pii-guard.wasm")
        put_policy(name="guarded", validators=[{"id": "pii_guard", "on_fail": "block"}])
        one = routers()[0]
        status, answer = eventually("the guard", lambda: (lambda said: said[0] == 200 and said)(decide(one, "Good morning")))
        show(f"\"Good morning\": {answer['decision']['provider_id'] if 'decision' in answer else answer}")
        status, answer = decide(one, "My card is 4111 1111 1111 1111")
        show(f"\"My card is 4111 1111 1111 1111\": {status} {json.dumps(answer)[:200]}")

        title("Another Router has its extensions from an image, mounted by the kubelet")
        import supply
        rig.build("localhost/extensions:demo", {"pii_guard.json": supply.record(supply.digest()), "pii-guard.wasm": supply.MODULE}, "FROM scratch\nCOPY . /\n")
        pod = supply.router("apps", "with-image", {"image": {"reference": "localhost/extensions:demo", "pullPolicy": "Never"}})
        supply.guards(pod)
        show(json.dumps([volume for volume in pod["spec"]["volumes"] if "image" in volume][0]))

        title("The sidecar's serving process is killed (kill -9) in every Router, five times")
        for _ in range(5):
            for pod in routers():
                for pid in rig.processes(pod).get("beamline-sidecar", []):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(2)
        kubectl("get", "pods", "-n", "apps")
        told()

        title("HEIR and the injector are deleted, and the Routers are rolled out anew")
        rig.kubectl("delete", "pod", "-n", "beamline", "--all", "--grace-period=0", "--force")
        eventually("HEIR", lambda: is_ready(get("pods", "heir-0", "beamline")), 90)
        rig.rolled_out("injector-beamline-sidecar-injector", "beamline")
        kubectl("rollout", "restart", "deployment/router", "-n", "apps")
        rig.kubectl("rollout", "status", "deployment/router", "-n", "apps", "--timeout=120s")
        eventually("the end of the old Routers", lambda: len(listed("pods", "apps", "app=router")) <= 4, 60)
        told()
    rig.end_common()
    title("The node is taken down again")


if __name__ == "__main__":
    main()
