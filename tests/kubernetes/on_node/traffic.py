"""Three Routers under steady lookups and decisions, whatever is done to them and around them: each counts its own failures."""

import json
import time

import rig
from rig import (HELM4, INJECTOR, OWN_IMAGE, case, chart, counts, create, deployment, eventually, get, is_ready, kubectl, listed, merge,
                 merged, namespace, nothing_failed, require, rolled_out)

PLACE = "traffic"


def routers(place=PLACE):
    return [pod for pod in listed("pods", place, "app=router") if pod["status"].get("podIP")]


class Routers:
    """A Deployment of three; what ended has told its counts, what runs is asked."""

    def __init__(self, place=PLACE, **how):
        self.place, self.how = place, how

    def __enter__(self):
        rig.base()
        self.space = namespace(self.place)
        self.space.__enter__()
        create(deployment("router", 3, **self.how), self.place)
        rolled_out("router", self.place)
        return self

    def __exit__(self, *error):
        self.space.__exit__(*error)

    def restart(self):
        kubectl("rollout", "restart", "deployment/router", "-n", self.place)
        kubectl("rollout", "status", "deployment/router", "-n", self.place, "--timeout=180s")
        # Those that end still count.
        eventually("the end of the old pods", lambda: len(listed("pods", self.place)) == 3, 90)

    def told(self, at_least=200):
        # What ended a moment ago is on its way.
        eventually("the counts of all", lambda: not set(rig.collector.begun) - set(rig.collector.ended) - {pod["metadata"]["name"] for pod in routers(self.place)}, 30)
        return nothing_failed(routers(self.place), at_least)


@case
def five_rolling_updates_fail_no_call():
    with Routers(drain=2) as group:
        for _ in range(5):
            group.restart()
        return group.told(1000)


@case
def a_drained_node_fails_no_call_and_everything_comes_back():
    """HEIR too. Not the injector: its budget keeps one replica, and the node is the only one, so its drain would never end."""
    with Routers(drain=2) as group:
        kubectl("drain", "node0", "--pod-selector=app.kubernetes.io/component!=injector", "--ignore-daemonsets", "--delete-emptydir-data", "--force", "--timeout=180s", timeout=240)
        eventually("the end of all pods", lambda: not routers(), 60)
        kubectl("uncordon", "node0")
        rolled_out("router", PLACE, 300)
        time.sleep(3)
        return group.told()


@case
def heir_that_is_deleted_is_missed_by_no_call():
    with Routers() as group:
        for _ in range(2):
            kubectl("delete", "pod", "heir-0", "-n", "beamline", "--grace-period=0", "--force")
            eventually("HEIR", lambda: is_ready(get("pods", "heir-0", "beamline")), 90)
        time.sleep(2)
        return group.told()


@case
def the_injector_that_is_deleted_is_missed_by_no_call():
    with Routers() as group:
        kubectl("delete", "pod", "-n", "beamline", "-l", "app.kubernetes.io/component=injector", "--grace-period=0", "--force")
        rolled_out("injector-beamline-sidecar-injector", "beamline")
        group.restart()
        return group.told()


@case
def a_change_of_policies_reaches_every_router_and_fails_no_call():
    with Routers() as group:
        def all_have(mark):
            return all(json.loads(counts(pod)["policy"]).get("metadata", {}).get("mark") == mark for pod in routers())
        longest = 0
        for turn in range(10):
            begun = time.monotonic()
            rig.put_policy(metadata={"mark": str(turn)})
            eventually("the change in every Router", lambda: all_have(str(turn)), 30, 0.05)
            longest = max(longest, time.monotonic() - begun)
        rig.put_policy()
        return f"{group.told(100)}; a change was everywhere after {longest:.1f} s at most"


@case
def a_change_of_an_extension_fails_no_call():
    rig.base()
    rig.extension("pii_guard", "validator", "pii-guard.wasm")
    rig.put_policy(name="guarded", validators=[{"id": "pii_guard", "on_fail": "block"}])
    try:
        with Routers(environment={"ROUTER_POLICY": "acme/guarded"}):
            # Compiled at the start; `extensions.required_at_start` would make the pods wait for that.
            before = eventually("the guard in every Router", lambda: (lambda seen: all(one["decision"] for one in seen) and seen)(
                [counts(pod) for pod in routers()]))
            for turn in range(5):
                rig.extension("pii_guard", "validator", "pii-guard.wasm", {"allow": ["email"]} if turn % 2 else {})
                time.sleep(1.5)
            after = [counts(pod) for pod in routers()]
            failed = sum(one["failed"] for one in after) - sum(one["failed"] for one in before)
            calls = sum(one["decisions"] for one in after) - sum(one["decisions"] for one in before)
            require(calls > 200 and failed == 0, f"{failed} of {calls} decisions failed")
            return f"{calls} decisions, 0 failed; {sum(one['failed'] for one in before)} before the extension was compiled"
    finally:
        rig.heir("DELETE", "/api/v1/policies/acme/guarded")
        rig.heir("DELETE", "/api/v1/extensions/pii_guard")


@case
def a_sidecar_with_200m_of_cpu_under_pressure_fails_no_call():
    with Routers(annotations={"sidecar.beamline.dev/cpu-limit": "200m"}, environment={"ROUTER_FLOOD": 4, "ROUTER_TIMEOUT_MS": 5000}) as group:
        time.sleep(15)
        said = group.told(2000)
        worst = max(counts(pod)["lookup_p99_ms"] for pod in routers())
        return f"{said}; lookups p99 {worst:.0f} ms flooded"


@case
def a_router_that_drains_for_20_s_fails_no_call_until_its_end():
    with Routers(drain=20, grace=60) as group:
        group.restart()
        drained = [one for one in rig.collector.ended.values()]
        require(len(drained) == 3, f"{len(drained)} Routers ended")
        return group.told()


@case
def an_upgrade_of_the_injector_and_of_heir_fails_no_call():
    with Routers() as group:
        changed = merged(INJECTOR, {"sidecar": {"logLevel": "warn"}, "podAnnotations": {"turn": "1"}})
        HELM4.upgrade("injector", chart("beamline-sidecar-injector"), "beamline", changed)
        HELM4.upgrade("heir", chart("beamline-heir"), "beamline", {"image": OWN_IMAGE, "podAnnotations": {"turn": "1"}})
        group.restart()
        HELM4.upgrade("injector", chart("beamline-sidecar-injector"), "beamline", INJECTOR)
        HELM4.upgrade("heir", chart("beamline-heir"), "beamline", {"image": OWN_IMAGE})
        return group.told()
