//! Whatever a pod looks like: the patch is valid, it adds and does nothing else, and there is nothing to do afterwards.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use beamline_sidecar::inject::{Fragment, Outcome, Skipped, apply, inject};
use proptest::prelude::*;
use serde_json::{Map, Value, json};

use super::pods::patched;

/// Anything, as a newer API server may have it in any field.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        "[ -~é/]{0,8}".prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::btree_map("[a-z/~.]{1,6}", inner, 0..3)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

fn object() -> impl Strategy<Value = Map<String, Value>> {
    proptest::collection::btree_map("[a-z]{1,3}[A-Z/~.][a-z]{1,6}", anything(), 0..4)
        .prop_map(|map| map.into_iter().collect())
}

fn containers(prefix: &'static str, at_least: usize) -> impl Strategy<Value = Value> {
    proptest::collection::vec(object(), at_least..4).prop_map(move |objects| {
        let named = objects.into_iter().enumerate().map(|(number, mut container)| {
            container.insert("name".to_owned(), format!("{prefix}-{number}").into());
            Value::Object(container)
        });
        named.collect()
    })
}

fn maybe(list: impl Strategy<Value = Value> + 'static) -> BoxedStrategy<Option<Value>> {
    prop_oneof![Just(None), Just(Some(Value::Null)), list.prop_map(Some)].boxed()
}

fn pod() -> impl Strategy<Value = Value> {
    let metadata = prop_oneof![
        Just(None),
        Just(Some(json!({}))),
        proptest::collection::btree_map("[a-z]{1,6}[./~][a-z]{1,6}", "[ -~]{0,8}", 0..4)
            .prop_map(|map| Some(json!({"generateName": "router-", "annotations": map}))),
    ];
    let lists = (
        containers("app", 1),
        maybe(containers("init", 0)),
        maybe(containers("volume", 0)),
        maybe(containers("secret", 0)),
    );
    (object(), object(), metadata, lists, any::<bool>()).prop_map(
        |(mut pod, mut spec, metadata, (containers, inits, volumes, secrets), is_classic)| {
            spec.insert("containers".to_owned(), containers);
            for (name, list) in [
                ("initContainers", inits),
                ("volumes", volumes),
                ("imagePullSecrets", secrets),
            ] {
                if let Some(list) = list {
                    spec.insert(name.to_owned(), list);
                }
            }
            if let Some(mut metadata) = metadata {
                if is_classic && metadata["annotations"].is_object() {
                    metadata["annotations"]["sidecar.beamline.dev/native"] = "false".into();
                }
                pod.insert("metadata".to_owned(), metadata);
            }
            pod.insert("spec".to_owned(), Value::Object(spec));
            Value::Object(pod)
        },
    )
}

/// Whether everything of `before` is in `after`, lists in their order, with nothing changed in between.
fn is_kept(before: &Value, after: &Value) -> bool {
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => before
            .iter()
            .all(|(name, value)| after.get(name).is_some_and(|after| is_kept(value, after))),
        (Value::Array(before), Value::Array(after)) => {
            let mut rest = after.iter();
            before.iter().all(|value| rest.any(|after| after == value))
        }
        // An absent list and one that is null are the same to Kubernetes.
        (Value::Null, Value::Array(_)) => true,
        (before, after) => before == after,
    }
}

fn fragments() -> Vec<Fragment> {
    let default: Value =
        serde_json::from_str(include_str!("../../../src/inject/default-fragment.json")).unwrap();
    let mut full = default.clone();
    full["initContainers"] = json!([{"name": "beamline-sidecar-extensions", "image": "x"}]);
    full["annotations"] = json!({"a.b/c~d": "e"});
    full["imagePullSecrets"] = json!([{"name": "registry"}]);
    full["volumes"] = json!([{"name": "beamline-sidecar-state"}, {"name": "beamline-sidecar-extensions"}]);
    [default, full]
        .iter()
        .map(|document| Fragment::parse(&document.to_string()).unwrap())
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_patch_is_valid_removes_and_changes_nothing_and_is_complete(pod in pod()) {
        for fragment in fragments() {
            let Outcome::Injected(injection) = inject(&pod, &fragment).unwrap() else {
                panic!("{pod} has no sidecar")
            };
            let operations = serde_json::to_value(&injection.patch).unwrap();
            prop_assert!(operations.as_array().unwrap().iter().all(|operation| operation["op"] == "add"));
            let after = patched(&pod, &injection);
            prop_assert!(is_kept(&pod, &after), "{pod}\n{after}");
            // The same by our own hands.
            let mut ours = pod.clone();
            apply(&mut ours, &injection.patch).unwrap();
            prop_assert_eq!(&ours, &after);
            // And nothing is left to do.
            prop_assert_eq!(inject(&after, &fragment).unwrap(), Outcome::Skipped(Skipped::AlreadyThere));
        }
    }

    #[test]
    fn no_document_is_too_strange(document in anything()) {
        for fragment in fragments() {
            let _refused = inject(&document, &fragment);
            let _refused = inject(&json!({"metadata": document, "spec": {"containers": [document]}}), &fragment);
            let _refused = inject(&json!({"metadata": {"annotations": document, "labels": document}, "spec": document}), &fragment);
        }
    }
}
