//! `beamline-sidecar inject`.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::fs;

use serde_json::{Value, json};

use crate::support::{Ended, program};

const MANIFESTS: &str = "\
# A Router as people write it.
apiVersion: apps/v1
kind: Deployment
metadata: {name: router}
spec:
  template:
    metadata:
      labels: {app: router, sidecar.beamline.dev/inject: enabled}
    spec:
      containers:
      - name: router
        image: router:1
        args: ['yes', \"0644\", 12:30]
      volumes:
      - name: settings
        secret: {secretName: settings, defaultMode: 0400}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: other}
spec:
  template:
    metadata: {labels: {app: other}}
    spec:
      containers: [{name: other, image: other:1}]
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: nightly}
spec:
  jobTemplate:
    spec:
      template:
        metadata:
          labels: {sidecar.beamline.dev/inject: enabled}
        spec:
          restartPolicy: Never
          containers: [{name: job, image: job:1}]
---
apiVersion: v1
kind: ConfigMap
metadata: {name: settings}
data: {on: 'off'}
";

fn inject(arguments: &[&str], input: &str) -> Ended {
    Ended::with_input(program().arg("inject").args(arguments), input)
}

fn documents(text: &str) -> Vec<Value> {
    beamline_sidecar::yaml::read_manifests(text).unwrap()
}

fn inits(document: &Value, place: &str) -> Vec<String> {
    let list = document
        .pointer(place)
        .and_then(|pod| pod["spec"]["initContainers"].as_array());
    let names = list.into_iter().flatten();
    names
        .map(|init| init["name"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn labelled_templates_get_the_sidecar_and_everything_else_stays_as_it_is() {
    let ended = inject(&["-f", "-"], MANIFESTS);
    assert_eq!((ended.code, ended.errors.as_str()), (0, ""));
    let (before, after) = (documents(MANIFESTS), documents(&ended.out));
    assert_eq!(after.len(), 4);
    assert_eq!(inits(&after[0], "/spec/template"), ["beamline-sidecar"]);
    assert_eq!(
        inits(&after[2], "/spec/jobTemplate/spec/template"),
        ["beamline-sidecar"]
    );
    assert_eq!((&after[1], &after[3]), (&before[1], &before[3]));
    assert_eq!(
        after[0]["spec"]["template"]["spec"]["containers"][0]["args"],
        json!(["yes", "0644", "12:30"])
    );
    assert_eq!(
        after[0]["spec"]["template"]["spec"]["volumes"][0]["secret"]["defaultMode"],
        0o400
    );
    // Again changes nothing.
    assert_eq!(inject(&["-f", "-"], &ended.out).out, ended.out);
}

#[test]
fn all_takes_those_without_a_label_and_json_stays_json() {
    let after = documents(&inject(&["-f", "-", "--all"], MANIFESTS).out);
    assert_eq!(inits(&after[1], "/spec/template"), ["beamline-sidecar"]);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": documents(MANIFESTS)});
    let ended = inject(&["-f", "-"], &list.to_string());
    let after: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(inits(&after["items"][0], "/spec/template"), ["beamline-sidecar"]);
    assert_eq!(inits(&after["items"][1], "/spec/template"), Vec::<String>::new());
}

#[test]
fn check_says_which_pods_have_none_or_an_old_one() {
    let ended = inject(&["-f", "-", "--check"], MANIFESTS);
    assert_eq!((ended.code, ended.out.as_str()), (1, ""));
    assert_eq!(
        ended.errors,
        "Deployment/router: has no sidecar\nCronJob/nightly: has no sidecar\n"
    );
    let injected = inject(&["-f", "-"], MANIFESTS).out;
    let ended = inject(&["-f", "-", "--check"], &injected);
    assert_eq!(
        (ended.code, ended.out.as_str(), ended.errors.as_str()),
        (0, "", "")
    );
    // With the injector's ConfigMap as `kubectl get -o json` gives it.
    let folder = tempfile::tempdir().unwrap();
    let mut fragment: Value =
        serde_json::from_str(include_str!("../../../src/inject/default-fragment.json")).unwrap();
    fragment["container"]["image"] = "beamline-sidecar:next".into();
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"fragment.json": fragment.to_string()}});
    let file = folder.path().join("fragment.json");
    fs::write(&file, map.to_string()).unwrap();
    let file = file.to_str().unwrap();
    let ended = inject(&["-f", "-", "--check", "--fragment", file], &injected);
    assert_eq!(ended.code, 1);
    assert!(
        ended
            .errors
            .contains("Deployment/router: has the sidecar of another fragment"),
        "{}",
        ended.errors
    );
    let fresh = inject(&["-f", "-", "--fragment", file], MANIFESTS).out;
    assert!(fresh.contains("beamline-sidecar:next"));
}

#[test]
fn what_cannot_be_done_is_said_by_name_and_nothing_is_printed() {
    let bad = MANIFESTS.replace("restartPolicy: Never", "hostNetwork: true");
    let ended = inject(&["-f", "-"], &bad);
    assert_eq!((ended.code, ended.out.as_str()), (64, ""));
    assert!(
        ended
            .errors
            .contains("CronJob/nightly: the pod has hostNetwork: true"),
        "{}",
        ended.errors
    );
    assert!(
        ended.errors.contains("1 pod cannot get the sidecar"),
        "{}",
        ended.errors
    );
    let ended = inject(&["-f", "-"], "a: [");
    assert_eq!((ended.code, ended.out.as_str()), (64, ""));
    let ended = inject(&["-f", "/missing"], "");
    assert!(
        ended.code == 64 && ended.errors.contains("/missing"),
        "{}",
        ended.errors
    );
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("old.json");
    fs::write(&file, "{\"apiVersion\": \"sidecar.beamline.dev/fragment.v0\"}").unwrap();
    let ended = inject(&["-f", "-", "--fragment", file.to_str().unwrap()], MANIFESTS);
    assert!(
        ended.code == 64 && ended.errors.contains("fragment.v0"),
        "{}",
        ended.errors
    );
    let ended = inject(&["-f", "-"], "kind: ConfigMap\n");
    assert!(
        ended.code == 0 && ended.errors.contains("No pod here"),
        "{}",
        ended.errors
    );
}
