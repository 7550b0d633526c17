"""The three ways into a pod, on a kubelet: the order of its start and its stop, under restricted Pod Security, and a Job that ends."""

import json

import yaml

import rig
from rig import (HELM4, OWN_IMAGE, PROGRAM, case, chart, containers, counts, create, eventually, finished, get, listed, merge, namespace, pod,
                 ready_pod, require, run)

KEEP = "sidecar.beamline.dev/kept-by-the-test"


def started(status):
    from datetime import datetime
    state = status["state"].get("running") or status["state"]["terminated"]
    return datetime.fromisoformat(state["startedAt"])


def in_order(place, name):
    """Starts are seen while it runs; the ends because a finalizer keeps what the kubelet said last."""
    found = ready_pod(name, place, 90)
    statuses = containers(found)
    require(statuses["beamline-sidecar"]["started"] and statuses["beamline-sidecar"]["restartCount"] == 0, lambda: json.dumps(statuses))
    require(started(statuses["beamline-sidecar"]) <= started(statuses["router"]), "the Router was started before the sidecar")
    seen = counts(found)
    require(seen["failed"] == 0, lambda: f"calls failed from the first one on: {seen['failures']}")
    merge("pods", name, {"metadata": {"finalizers": [KEEP]}}, place)
    rig.delete("pods", name, place)

    def ended():
        status = containers(get("pods", name, place))
        return all("terminated" in part["state"] for part in status.values()) and status
    try:
        status = eventually("the end of both containers", ended, 60)
    finally:
        merge("pods", name, {"metadata": {"finalizers": None}}, place)
    require(finished(status["router"]) <= finished(status["beamline-sidecar"]), "the sidecar ended before the Router")
    for part in ("router", "beamline-sidecar"):
        require(status[part]["state"]["terminated"]["exitCode"] == 0, lambda: f"{part} ended with {json.dumps(status[part]['state'])}")
    final = eventually("the Router's last counts", lambda: rig.collector.ended.get(name))
    require(final["failed"] == 0, lambda: f"calls failed until the last one: {final['failures']}")
    drained = finished(status["beamline-sidecar"]) - finished(status["router"])
    return f"{final['lookups'] + final['decisions']} calls, 0 failed; the sidecar ended {drained.total_seconds():.0f} s after the Router"


@case
def the_webhook_way_starts_before_the_router_and_ends_after_it_under_restricted_pod_security():
    rig.base()
    with namespace("webhook-way") as place:
        create(pod("router", drain=3), place)
        return in_order(place, "router")


@case
def the_include_way_starts_before_the_router_and_ends_after_it_under_restricted_pod_security():
    rig.base()
    with namespace("include-way") as place:
        values = {"replicas": 1, "image": {"repository": "localhost/router"}, "resources": {"requests": {"cpu": "10m"}},
                  "sidecar": {"image": OWN_IMAGE, "store": {"url": "http://heir.beamline:8090"}}}
        text = HELM4.with_values("template", "demo", chart("router-with-include"), place, values)
        [made] = [part for part in yaml.safe_load_all(text) if part and part["kind"] == "Deployment"]
        template = made["spec"]["template"]
        # Its own variables, so that the case hears what was counted.
        template["spec"]["containers"][0]["env"] += [{"name": "ROUTER_DRAIN_SECONDS", "value": "3"},
                                                      {"name": "ROUTER_COLLECTOR", "value": f"http://{rig.NODE}:7070/"}]
        create({"apiVersion": "v1", "kind": "Pod", **template, "metadata": {**template["metadata"], "name": "router"}}, place)
        return in_order(place, "router")


@case
def the_command_way_starts_before_the_router_and_ends_after_it_under_restricted_pod_security():
    rig.base()
    with namespace("command-way", {"sidecar.beamline.dev/injection": "disabled"}) as place:
        fragment = get("configmaps", "injector-beamline-sidecar-injector-fragment", "beamline")["data"]["fragment.json"]
        file = rig.DIR / "fragment.json"
        file.write_text(fragment)
        text = run(PROGRAM, "inject", "-f", "-", "--fragment", file, input=json.dumps(pod("router", drain=3)))
        create(json.loads(text), place)
        return in_order(place, "router")


@case
def the_three_ways_give_the_same_pod_from_the_api_server():
    """As it is stored, defaults and all, and without what differs between any two pods."""
    rig.base()
    stored = {}
    with namespace("same-pod") as place, namespace("same-pod-command", {"sidecar.beamline.dev/injection": "disabled"}) as other:
        fragment = get("configmaps", "injector-beamline-sidecar-injector-fragment", "beamline")["data"]["fragment.json"]
        file = rig.DIR / "fragment.json"
        file.write_text(fragment)
        stored["webhook"] = create(pod("router"), place, "?dryRun=All")
        injected = json.loads(run(PROGRAM, "inject", "-f", "-", "--fragment", file, input=json.dumps(pod("router"))))
        stored["command"] = create(injected, other, "?dryRun=All")
        values = {"sidecar": {"image": OWN_IMAGE, "store": {"url": "http://heir.beamline:8090"}}}
        text = HELM4.with_values("template", "demo", chart("router-with-include"), place, values)
        [made] = [part for part in yaml.safe_load_all(text) if part and part["kind"] == "Deployment"]
        included = pod("router")
        included["metadata"]["annotations"] = made["spec"]["template"]["metadata"]["annotations"]
        included["spec"]["initContainers"] = made["spec"]["template"]["spec"]["initContainers"]
        included["spec"]["volumes"] = made["spec"]["template"]["spec"]["volumes"]
        stored["include"] = create(included, other, "?dryRun=All")
    for found in stored.values():
        for name in ["uid", "creationTimestamp", "namespace", "managedFields"]:
            found["metadata"].pop(name, None)
        found["metadata"].pop("resourceVersion", None)
    for way in ["command", "include"]:
        require(stored[way] == stored["webhook"], lambda: f"{way}:\n{json.dumps(stored[way], indent=1)}\nwebhook:\n{json.dumps(stored['webhook'], indent=1)}")


@case
def an_admission_policy_gives_the_same_pod_without_an_injector_and_that_pod_runs():
    rig.base()
    with namespace("by-policy") as place, namespace("policy") as own:
        by_webhook = create(pod("router"), place, "?dryRun=All")
        # Beside the injector: whoever comes first, the pod has the sidecar once.
        HELM4.install("policy", chart("beamline-sidecar-injector"), own, rig.merged(rig.INJECTOR, {"mode": "admissionPolicy"}))
        try:
            merge("deployments", "injector-beamline-sidecar-injector", {"spec": {"replicas": 0}}, "beamline")
            eventually("the end of the injector's pods", lambda: not listed("pods", "beamline", "app.kubernetes.io/component=injector"))
            # Until the API server has the policy, the webhook is asked, and is not there.
            by_policy = eventually("the policy's first pod", lambda: create(pod("router"), place, "?dryRun=All"))
            for found in (by_webhook, by_policy):
                for name in ["uid", "creationTimestamp", "managedFields"]:
                    found["metadata"].pop(name, None)
            require(by_policy == by_webhook, lambda: f"the policy:\n{json.dumps(by_policy)}\nthe webhook:\n{json.dumps(by_webhook)}")
            message = rig.refused(pod("router", annotations={"sidecar.beamline.dev/cpu-limit": "1"}), place)
            require("only the injector does" in message, message)
            create(pod("router", drain=3), place)
            return in_order(place, "router")
        finally:
            HELM4("uninstall", "policy", "--namespace", own, "--wait")
            merge("deployments", "injector-beamline-sidecar-injector", {"spec": {"replicas": 2}}, "beamline")
            rig.rolled_out("injector-beamline-sidecar-injector", "beamline")


@case
def a_job_with_the_sidecar_completes():
    rig.base()
    with namespace("job") as place:
        template = rig.router_pod(environment={"ROUTER_SECONDS": 3})
        template["spec"]["restartPolicy"] = "Never"
        del template["spec"]["containers"][0]["readinessProbe"]
        create({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "once"}, "spec": {"backoffLimit": 0, "template": template}}, place)
        eventually("the Job's completion", lambda: get("jobs", "once", place)["status"].get("succeeded") == 1, 90)
        [done] = listed("pods", place)
        require(done["status"]["phase"] == "Succeeded", done["status"]["phase"])
        [counted] = rig.collector.ended.values()
        require(counted["failed"] == 0 and counted["decisions"] > 20, lambda: json.dumps(counted))


@case
def a_classic_sidecar_serves_while_the_router_drains():
    rig.base()
    with namespace("classic") as place:
        create(pod("router", annotations={"sidecar.beamline.dev/native": "false"}, drain=8, grace=30), place)
        ready_pod("router", place, 90)
        rig.delete("pods", "router", place)
        final = eventually("the Router's last counts", lambda: rig.collector.ended.get("router"), 60)
        # Nothing orders the start of a classic sidecar: what failed must have failed before the first good answer.
        late = [failure for failure in final["failures"] or [] if failure["at"] > final["first_good"]]
        require(not late, lambda: f"calls failed: {late}")
        return f"{final['lookups'] + final['decisions']} calls, {final['failed']} failed before the sidecar was up, 0 after"


@case
def a_configuration_that_can_never_start_ends_the_container_with_its_reason():
    rig.base()
    with namespace("never-starts") as place:
        made = json.loads(run(PROGRAM, "inject", "-f", "-", "--fragment", rig.DIR / "fragment.json", input=json.dumps(pod("router"))))
        rig.sidecar_of(made)["env"].append({"name": "BEAMLINE_REFRESH_INTERVAL_MS", "value": "soon"})
        create(made, place)

        def ended():
            status = containers(get("pods", "router", place))["beamline-sidecar"]
            last = status["state"].get("terminated") or status.get("lastState", {}).get("terminated")
            return last
        last = eventually("the end of the container", ended, 60)
        require(last["exitCode"] != 0, lambda: json.dumps(last))
        log = rig.api.call("GET", f"/api/v1/namespaces/{place}/pods/router/log?container=beamline-sidecar", raw=True)
        require("interval_ms" in log.lower(), lambda: log)
        return f"exit code {last['exitCode']}"
