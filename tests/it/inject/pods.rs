//! Pods as people write them, with the fragment of the chart's default values.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use beamline_sidecar::inject::{
    Fragment, Injection, Outcome, Refusal, SIDECAR, Skipped, State, inject, state_of,
};
use serde_json::{Value, json};

fn fragment() -> Fragment {
    Fragment::of_default_values().unwrap()
}

/// The fragment of the default values, changed.
fn fragment_with(change: impl Fn(&mut Value)) -> Fragment {
    let mut document: Value =
        serde_json::from_str(include_str!("../../../src/inject/default-fragment.json")).unwrap();
    change(&mut document);
    Fragment::parse(&document.to_string()).unwrap()
}

fn router() -> Value {
    json!({
        "metadata": {"labels": {"app": "router"}},
        "spec": {"containers": [{"name": "router", "image": "router:1", "ports": [{"containerPort": 9000}]}]},
    })
}

fn injection(pod: &Value, fragment: &Fragment) -> Injection {
    match inject(pod, fragment).unwrap() {
        Outcome::Injected(injection) => injection,
        Outcome::Skipped(skipped) => panic!("{skipped:?}"),
    }
}

/// The pod after the patch, by a library that is not ours.
pub(super) fn patched(pod: &Value, injection: &Injection) -> Value {
    let patch: json_patch::Patch =
        serde_json::from_value(serde_json::to_value(&injection.patch).unwrap()).unwrap();
    let mut patched = pod.clone();
    json_patch::patch(&mut patched, &patch).unwrap();
    patched
}

fn injected(pod: &Value, fragment: &Fragment) -> Value {
    patched(pod, &injection(pod, fragment))
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().map(Vec::as_slice).unwrap_or_default();
    list.iter().map(|part| part["name"].as_str().unwrap()).collect()
}

#[test]
fn a_native_sidecar_is_the_first_init_container_and_restarted_forever() {
    let mut pod = router();
    pod["spec"]["initContainers"] =
        json!([{"name": "migrate"}, {"name": "proxy", "restartPolicy": "Always"}]);
    let after = injected(&pod, &fragment());
    let spec = &after["spec"];
    assert_eq!(names(&spec["initContainers"]), [SIDECAR, "migrate", "proxy"]);
    assert_eq!(names(&spec["containers"]), ["router"]);
    let sidecar = &spec["initContainers"][0];
    assert_eq!(sidecar["restartPolicy"], "Always");
    // It ends when the Router has ended, and nothing may end it before.
    assert_eq!(sidecar.get("lifecycle"), None);
    assert_eq!(sidecar["startupProbe"]["httpGet"]["path"], "/ready");
    assert_eq!(names(&spec["volumes"]), ["beamline-sidecar-state"]);
    let annotations = &after["metadata"]["annotations"];
    assert_eq!(annotations["sidecar.beamline.dev/status"], "injected");
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "router");
    assert_eq!(state_of(&pod, &fragment()), State::Missing);
    assert_eq!(state_of(&after, &fragment()), State::Current);
    let newer = fragment_with(|document| document["container"]["image"] = "other:2".into());
    assert_eq!(state_of(&after, &newer), State::Stale);
}

#[test]
fn a_classic_sidecar_is_the_first_container_and_drains_before_it_is_stopped() {
    let mut pod = router();
    pod["metadata"]["annotations"] = json!({"sidecar.beamline.dev/native": "false"});
    let after = injected(&pod, &fragment());
    assert_eq!(names(&after["spec"]["containers"]), [SIDECAR, "router"]);
    assert_eq!(after["spec"].get("initContainers"), None);
    let sidecar = &after["spec"]["containers"][0];
    assert_eq!(sidecar.get("restartPolicy"), None);
    assert_eq!(sidecar["lifecycle"]["preStop"]["sleep"]["seconds"], 10);
    assert_eq!(
        after["metadata"]["annotations"]["kubectl.kubernetes.io/default-container"],
        "router"
    );
}

#[test]
fn a_classic_sidecar_is_refused_where_a_pod_would_never_end_or_be_killed_too_early() {
    let classic = fragment_with(|document| document["native"] = false.into());
    let mut job = router();
    job["spec"]["restartPolicy"] = "OnFailure".into();
    assert_eq!(
        inject(&job, &classic).unwrap_err(),
        Refusal::NeverComplete("OnFailure".to_owned())
    );
    injected(&job, &fragment());
    let mut hasty = router();
    hasty["spec"]["terminationGracePeriodSeconds"] = 14.into();
    let error = inject(&hasty, &classic).unwrap_err();
    assert_eq!(error, Refusal::GracePeriod { grace: 14, drain: 10 });
    assert!(error.to_string().contains("at least 15"), "{error}");
    injected(&hasty, &fragment());
    hasty["spec"]["terminationGracePeriodSeconds"] = 15.into();
    injected(&hasty, &classic);
}

#[test]
fn containers_that_bring_modules_run_before_the_sidecar_whichever_kind_it_is() {
    for native in [true, false] {
        let with_init = fragment_with(|document| {
            document["native"] = native.into();
            document["initContainers"] = json!([{"name": "beamline-sidecar-extensions"}]);
        });
        let mut pod = router();
        pod["spec"]["initContainers"] = json!([{"name": "migrate"}]);
        let after = injected(&pod, &with_init);
        let inits = names(&after["spec"]["initContainers"]);
        if native {
            assert_eq!(inits, ["beamline-sidecar-extensions", SIDECAR, "migrate"]);
        } else {
            assert_eq!(inits, ["beamline-sidecar-extensions", "migrate"]);
        }
    }
}

#[test]
fn a_pod_that_has_the_sidecar_or_does_not_want_it_is_left_alone() {
    let after = injected(&router(), &fragment());
    assert_eq!(
        inject(&after, &fragment()).unwrap(),
        Outcome::Skipped(Skipped::AlreadyThere)
    );
    let mut disabled = router();
    disabled["metadata"]["labels"]["sidecar.beamline.dev/inject"] = "disabled".into();
    assert_eq!(
        inject(&disabled, &fragment()).unwrap(),
        Outcome::Skipped(Skipped::Disabled)
    );
    let mut mistyped = router();
    mistyped["metadata"]["labels"]["sidecar.beamline.dev/inject"] = "true".into();
    let error = inject(&mistyped, &fragment()).unwrap_err().to_string();
    assert!(error.contains("sidecar.beamline.dev/inject") && error.contains("enabled or disabled"));
}

#[test]
fn what_cannot_work_is_refused_by_name_and_what_may_not_work_is_said() {
    let with = |change: &dyn Fn(&mut Value)| {
        let mut pod = router();
        change(&mut pod);
        pod
    };
    for (pod, part) in [
        (
            with(&|pod| pod["spec"]["hostNetwork"] = true.into()),
            "hostNetwork",
        ),
        (
            with(&|pod| pod["spec"]["volumes"] = json!([{"name": "beamline-sidecar-state"}])),
            "volume named beamline-sidecar-state",
        ),
        (
            with(&|pod| pod["metadata"]["annotations"] = json!({"sidecar.beamline.dev/cpu-limit": "much"})),
            "sidecar.beamline.dev/cpu-limit",
        ),
        (
            with(&|pod| pod["metadata"]["annotations"] = json!({"sidecar.beamline.dev/image": "own:1"})),
            "sidecar.beamline.dev/image is not allowed",
        ),
        (
            with(&|pod| pod["spec"]["containers"] = json!([])),
            "no containers",
        ),
        (
            with(&|pod| pod["spec"]["volumes"] = json!("x")),
            "a list of the pod's spec",
        ),
        (json!({}), "no spec"),
        (json!("pod"), "no spec"),
    ] {
        let error = inject(&pod, &fragment()).unwrap_err().to_string();
        assert!(error.contains(part), "{error}");
    }
    let pod = with(&|pod| {
        pod["metadata"]["annotations"] = json!({"sidecar.beamline.dev/log-levle": "debug"});
        pod["spec"]["containers"][0]["ports"] = json!([{"containerPort": 8080}, {"containerPort": 9901}]);
    });
    let warnings = injection(&pod, &fragment()).warnings;
    assert_eq!(warnings.len(), 3, "{warnings:?}");
    for part in ["log-levle", "router has port 8080", "router has port 9901"] {
        assert!(
            warnings.iter().any(|warning| warning.contains(part)),
            "{warnings:?}"
        );
    }
}

#[test]
fn what_the_author_wrote_is_kept_and_pull_secrets_are_not_doubled() {
    let fragment = fragment_with(|document| {
        document["annotations"] = json!({"team": "platform", "a/b~c": "d"});
        document["imagePullSecrets"] = json!([{"name": "have"}, {"name": "new"}]);
    });
    let mut pod = router();
    pod["metadata"]["annotations"] = json!({
        "team": "mine", "kubectl.kubernetes.io/default-container": "other",
        "sidecar.beamline.dev/status": "copied from elsewhere",
    });
    pod["spec"]["imagePullSecrets"] = json!([{"name": "have"}]);
    let after = injected(&pod, &fragment);
    let annotations = &after["metadata"]["annotations"];
    assert_eq!(annotations["team"], "mine");
    assert_eq!(annotations["a/b~c"], "d");
    assert_eq!(annotations["kubectl.kubernetes.io/default-container"], "other");
    assert_eq!(annotations["sidecar.beamline.dev/status"], "injected");
    assert_eq!(names(&after["spec"]["imagePullSecrets"]), ["have", "new"]);
}

#[test]
fn lists_that_are_null_and_a_pod_without_metadata_are_as_if_absent() {
    let pod = json!({"spec": {
        "containers": [{"name": "router"}], "initContainers": null, "volumes": null, "imagePullSecrets": null,
    }});
    let after = injected(&pod, &fragment());
    assert_eq!(names(&after["spec"]["initContainers"]), [SIDECAR]);
    assert_eq!(names(&after["spec"]["volumes"]), ["beamline-sidecar-state"]);
}
