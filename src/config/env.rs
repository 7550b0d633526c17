//! Environment variables over the file: `heir.url` is `BEAMLINE_HEIR_URL`.
//!
//! The environment comes in as a value, so that tests pass a map. A variable that names no key is ignored:
//! Kubernetes puts `BEAMLINE_…` variables of its own into a pod when a service is called `beamline`. One of those has the
//! name of a key where the service is called `beamline-heir-policy-store`; it is known by its value.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    check::Keys,
    mistake::Mistake,
    renamed::{RENAMED, renamed},
};

/// The variables that a process was started with.
pub type Environment = BTreeMap<String, String>;

/// This process's environment. The only place that reads it.
pub fn environment() -> Environment {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The variable that sets a key, such as `BEAMLINE_HEIR_POOL_MAX_REQUESTS` for `heir.pool.max_requests`. The Router's
/// own keys keep their names: `BEAMLINE_HEIR_POLICY_STORE_ENABLED`.
pub(super) fn variable(path: &str) -> String {
    format!("BEAMLINE_{}", path.replace('.', "_").to_ascii_uppercase())
}

/// What came of the environment.
#[derive(Debug, Default)]
pub(super) struct Overlaid {
    /// The keys whose values are the environment's, and the variables that they are from.
    pub(super) variables: BTreeMap<String, String>,
    pub(super) mistakes: Vec<Mistake>,
    pub(super) warnings: Vec<String>,
}

/// Puts the variables into the document. A text becomes a value of its key's type; one that cannot stays a text, which
/// the check of the whole reports.
pub(super) fn overlay(document: &mut Value, environment: &Environment, keys: &Keys) -> Overlaid {
    let mut overlaid = Overlaid::default();
    for key in keys.leaves() {
        let name = variable(&key.path);
        let Some(text) = environment.get(&name) else {
            continue;
        };
        if is_service_link(&name, text) {
            overlaid.warnings.push(format!(
                "{name} is {text}: Kubernetes sets it for a Service of that name, and it is ignored here; \
                 `enableServiceLinks: false` keeps such variables out of the pod"
            ));
            continue;
        }
        let value = key.value_from_text(text);
        if !set(document, &key.path, value) {
            overlaid.mistakes.push(Mistake::new(
                key.path.clone(),
                format!("{name} is set, but the file has a value there that is not a section"),
                "make the section a mapping in the file, or unset the variable",
            ));
        }
        overlaid.variables.insert(key.path.clone(), name);
    }
    overlaid
}

/// Whether Kubernetes has set it, in the manner of Docker's links: `tcp://10.0.0.1:80` under the name of a Service.
fn is_service_link(name: &str, text: &str) -> bool {
    let is_address = ["tcp://", "udp://", "sctp://"]
        .iter()
        .any(|scheme| text.starts_with(scheme));
    name.ends_with("_PORT") && is_address
}

/// A mistake for each variable of an old key.
pub(super) fn old_variables(environment: &Environment, keys: &Keys) -> Vec<Mistake> {
    let mut mistakes = Vec::new();
    for key in keys.leaves() {
        for (old, new) in RENAMED {
            // Empty for the key itself; for a section, the rest of the path.
            let Some(rest) = key.path.strip_prefix(new) else {
                continue;
            };
            if rest.is_empty() || rest.starts_with('.') {
                let old_key = format!("{old}{rest}");
                let name = variable(&old_key);
                if environment.contains_key(&name) {
                    mistakes.push(renamed(&old_key, &name, &variable(&key.path)));
                }
            }
        }
    }
    mistakes
}

fn set(document: &mut Value, path: &str, value: Value) -> bool {
    let mut place = document;
    for part in path.split('.') {
        if place.is_null() {
            *place = Value::Object(Map::new());
        }
        let Value::Object(section) = place else {
            return false;
        };
        place = section.entry(part).or_insert(Value::Null);
    }
    *place = value;
    true
}
