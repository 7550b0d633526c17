"""The charts' life: installed, tested, upgraded, rolled back, and gone without a trace; with Helm 3 and Helm 4."""

import json

import yaml

from rig import (HELM3, HELM4, IMAGE, INJECTOR, OWN_IMAGE, Failed, also, built, case, chart, eventually, get, image, listed, merged,
                 namespace, require, run, volume)
import rig

# What every namespace or cluster makes by itself, or keeps for a while.
NOT_OURS = {"events", "leases", "endpointslices", "endpoints", "controllerrevisions", "tokenreviews", "bindings", "componentstatuses"}


def everything():
    """Every object of the cluster, by its path."""
    found = set()
    for group in ["api/v1", *[f"apis/{part['preferredVersion']['groupVersion']}" for part in rig.api.call("GET", "/apis")["groups"]]]:
        for resource in rig.api.call("GET", f"/{group}")["resources"]:
            if "list" not in resource["verbs"] or "/" in resource["name"] or resource["name"] in NOT_OURS:
                continue
            for item in rig.api.call("GET", f"/{group}/{resource['name']}")["items"]:
                metadata = item["metadata"]
                found.add(f"{group} {resource['name']} {metadata.get('namespace', '')}/{metadata['name']}")
    return found


def leaves_nothing(before):
    def left():
        more = {one for one in everything() - before if " pods " not in one and not one.startswith("api/v1 events")}
        # A StatefulSet's claims are kept on purpose, and are the caller's to remove.
        return not more or (_ for _ in ()).throw(Failed(f"these are left: {sorted(more)}"))
    eventually("the end of everything that was installed", left, 60)


def old_chart(name):
    """The chart as the version before, for there was no release yet: its own version and image, and less in its values."""
    chart(name)
    old = built["charts"] / f"before-{name}"
    if not old.exists():
        run("cp", "-r", chart(name), old)
        described = yaml.safe_load((old / "Chart.yaml").read_text())
        described["version"] = described["appVersion"] = "0.0.9"
        (old / "Chart.yaml").write_text(yaml.safe_dump(described))
    return old


def lives(helm):
    image()
    also(f"{IMAGE}:0.0.9")
    with namespace("life") as place:
        volume("life")
        before = everything()
        heir = {"image": {**OWN_IMAGE}, "sqlite": {"size": "100Mi"}}
        helm.install("heir", old_chart("beamline-heir"), place, merged(heir, {"image": {"tag": "0.0.9"}}))
        helm("test", "heir", "--namespace", place)
        injector = merged(INJECTOR, {"sidecar": {"store": {"url": "http://heir.life:8090"}}})
        helm.install("injector", old_chart("beamline-sidecar-injector"), place, merged(injector, {"sidecar": {"image": {"tag": "0.0.9"}}}))
        helm("test", "injector", "--namespace", place)
        router = {"replicas": 1, "image": {"repository": "localhost/router"}, "resources": {"requests": {"cpu": "10m"}},
                  "sidecar": {"image": OWN_IMAGE, "store": {"url": "http://heir.life:8090"}}}
        rig.heir("PUT", "/api/v1/policies/acme/chat", rig.POLICY, namespace=place)
        helm.install("demo", chart("router-with-include"), place, router)

        def injector_image():
            return get("deployments", "injector-beamline-sidecar-injector", place)["spec"]["template"]["spec"]["containers"][0]["image"]

        require(injector_image().endswith(":0.0.9"), injector_image)
        helm.upgrade("heir", chart("beamline-heir"), place, heir)
        helm.upgrade("injector", chart("beamline-sidecar-injector"), place, injector)
        helm.upgrade("demo", chart("router-with-include"), place, merged(router, {"sidecar": {"logLevel": "debug"}}))
        helm("test", "heir", "--namespace", place)
        helm("test", "injector", "--namespace", place)
        require(injector_image().endswith(":0.1.0"), injector_image)
        # What was in the store is there after the upgrade.
        require(json.loads(rig.heir("GET", "/api/v1/policies/acme/chat", namespace=place))["version"] == "1.0", "the policy is lost")
        for release in ["heir", "injector", "demo"]:
            helm("rollback", release, "1", "--wait", "--timeout", "180s", "--namespace", place)
        require(injector_image().endswith(":0.0.9"), injector_image)
        helm("test", "injector", "--namespace", place)
        for release in ["demo", "injector", "heir"]:
            helm("uninstall", release, "--wait", "--namespace", place)
        claims = [found["metadata"]["name"] for found in listed("persistentvolumeclaims", place)]
        require(claims == ["data-heir-0"], f"an uninstall keeps the data, and nothing else: {claims}")
        rig.delete("persistentvolumeclaims", claims[0], place)
        leaves_nothing(before)
    rig.delete("persistentvolumes", "life")


@case
def helm_4_installs_tests_upgrades_rolls_back_and_uninstalls_without_a_trace():
    lives(HELM4)


@case
def helm_3_installs_tests_upgrades_rolls_back_and_uninstalls_without_a_trace():
    lives(HELM3)


@case
def an_upgrade_that_changes_nothing_restarts_nothing():
    rig.base()
    before = {found["metadata"]["uid"] for found in listed("pods", "beamline")}
    HELM4.upgrade("injector", chart("beamline-sidecar-injector"), "beamline", INJECTOR)
    HELM4.upgrade("heir", chart("beamline-heir"), "beamline", {"image": OWN_IMAGE})
    after = {found["metadata"]["uid"] for found in listed("pods", "beamline")}
    require(before == after, "pods were exchanged")


@case
def monitors_rules_and_certificates_are_valid_by_their_own_definitions():
    """The Prometheus operator's and cert-manager's, of their own modules; unknown fields are refused."""
    definitions = sorted((rig.charts.TOOLS / "crds").glob("*.yaml"))
    require(len(definitions) == 5, f"{len(definitions)} definitions are there")
    for definition in definitions:
        rig.kubectl("create", "-f", definition)
    try:
        checked = set()
        for values in sorted((chart("beamline-sidecar-injector") / "ci").glob("*-values.yaml")):
            text = HELM4("template", "demo", chart("beamline-sidecar-injector"), "--namespace", "default", "--values", values, "--kube-version", "1.37.0")
            for part in yaml.safe_load_all(text):
                if part and part["apiVersion"].startswith(rig.charts.FOREIGN):
                    plural = f"{part['kind'].lower()}s"
                    eventually("the definition", lambda: rig.api.call(
                        "POST", f"/apis/{part['apiVersion']}/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict", part), 20)
                    checked.add(part["kind"])
        require(checked == {"ServiceMonitor", "PodMonitor", "PrometheusRule", "Certificate", "Issuer"}, lambda: str(checked))
        return ", ".join(sorted(checked))
    finally:
        for definition in definitions:
            rig.kubectl("delete", "-f", definition)
