//! Manifests: documents as `kubectl apply` takes them, in which pods and the templates of pods are found by their kind.

use serde_json::Value;

use super::{
    fragment::Fragment,
    names::INJECT_LABEL,
    patch::apply,
    pod::{Outcome, Refusal, State, inject, state_of},
};

/// A pod or a template of pods in a manifest, and what was done with it.
#[derive(Debug)]
pub struct Found {
    /// Kind and name, as `Deployment/router`.
    pub name: String,
    /// What it was like before.
    pub state: State,
    /// Whether its label asks for the sidecar.
    pub is_wanted: bool,
    /// What was done, and what its author should know; why it cannot be done.
    pub result: Result<Vec<String>, Refusal>,
}

/// Puts the sidecar into every pod and template of this document that has the label `enabled`, and with `all` into those without
/// the label as well. Looks into lists.
pub fn inject_manifest(document: &mut Value, fragment: &Fragment, all: bool) -> Vec<Found> {
    let mut found = Vec::new();
    inject_into(document, fragment, all, &mut found);
    found
}

fn inject_into(document: &mut Value, fragment: &Fragment, all: bool, found: &mut Vec<Found>) {
    let kind = document["kind"].as_str().unwrap_or_default().to_owned();
    if kind == "List"
        && let Some(items) = document["items"].as_array_mut()
    {
        for item in items {
            inject_into(item, fragment, all, found);
        }
        return;
    }
    let group = document["apiVersion"].as_str().unwrap_or_default();
    let Some(place) = place_of_pod(group, &kind) else {
        return;
    };
    let metadata = &document["metadata"];
    let name = metadata["name"].as_str().or(metadata["generateName"].as_str());
    let name = format!("{kind}/{}", name.unwrap_or_default());
    let Some(pod) = document.pointer_mut(place) else {
        return;
    };
    let label = pod["metadata"]["labels"].get(INJECT_LABEL).cloned();
    let state = state_of(pod, fragment);
    let is_wanted = label.as_ref().is_some_and(|label| label != "disabled");
    let may_be = all && label.is_none();
    if !is_wanted && !may_be {
        return;
    }
    let result = inject(pod, fragment).and_then(|outcome| match outcome {
        Outcome::Skipped(_) => Ok(Vec::new()),
        Outcome::Injected(injection) => {
            apply(pod, &injection.patch)
                .map_err(|_| Refusal::Malformed("the pod has no place for the sidecar"))?;
            Ok(injection.warnings)
        }
    });
    found.push(Found {
        name,
        state,
        is_wanted,
        result,
    });
}

/// Where a kind has its pod.
fn place_of_pod(api_version: &str, kind: &str) -> Option<&'static str> {
    match (api_version, kind) {
        ("v1", "Pod") => Some(""),
        ("v1", "PodTemplate") => Some("/template"),
        ("v1", "ReplicationController")
        | ("apps/v1", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet")
        | ("batch/v1", "Job") => Some("/spec/template"),
        ("batch/v1", "CronJob") => Some("/spec/jobTemplate/spec/template"),
        _ => None,
    }
}
