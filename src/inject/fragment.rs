//! What is put into a pod, as the Helm library chart renders it.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

use super::{
    annotations::Override,
    names::{FRAGMENT_API_VERSION, SIDECAR},
};

/// The fragment of the chart's default values, for `inject` without `--fragment`. A test holds it to what Helm renders.
const DEFAULT: &str = include_str!("default-fragment.json");

/// What is put into a pod. Containers and volumes are kept as they are: the API server judges them.
#[derive(Debug, Clone)]
pub struct Fragment {
    pub(super) document: Document,
    digest: String,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    /// The version of the chart that rendered it.
    pub(super) version: String,
    /// Whether the sidecar is a native one (an init container that is restarted) where the pod says nothing.
    pub(super) native: bool,
    /// How long a classic sidecar goes on before it is told to stop.
    pub(super) drain_seconds: u64,
    /// The annotations with which a pod may override something.
    pub(super) allow_overrides: Vec<Override>,
    /// Annotations of the pod.
    pub(super) annotations: BTreeMap<String, String>,
    /// Containers that run to their end before the sidecar starts.
    pub(super) init_containers: Vec<Value>,
    /// The sidecar.
    pub(super) container: Map<String, Value>,
    /// What a native sidecar's container has as well.
    pub(super) native_fields: Map<String, Value>,
    /// What a classic sidecar's container has as well.
    pub(super) classic_fields: Map<String, Value>,
    /// Volumes of the pod.
    pub(super) volumes: Vec<Value>,
    /// References to secrets with which the images are pulled.
    pub(super) image_pull_secrets: Vec<Value>,
}

/// Why a fragment cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum FragmentError {
    /// It is not what it should be.
    #[error("it is no fragment: {0}")]
    Malformed(#[from] serde_json::Error),
    /// It is of another form.
    #[error(
        "its apiVersion is {found}, and this version of beamline-sidecar reads {FRAGMENT_API_VERSION}: \
             use a chart and an image of the same version"
    )]
    ApiVersion {
        /// What it says.
        found: String,
    },
    /// A part has no name, or one that another part has.
    #[error("{0}")]
    Names(String),
}

impl Fragment {
    /// Reads a fragment: as JSON, or in a `ConfigMap` in JSON with the key `fragment.json`, as the injector's chart renders it.
    ///
    /// # Errors
    /// When it cannot be used; the message says why.
    pub fn parse(text: &str) -> Result<Self, FragmentError> {
        let text = text.trim();
        let value: Value = serde_json::from_str(text)?;
        if value["kind"] == "ConfigMap"
            && let Some(inner) = value["data"]["fragment.json"].as_str()
        {
            return Self::parse(inner);
        }
        // Before everything else: a fragment of another form has other fields, and its version is what is wrong.
        let found = value["apiVersion"].as_str().unwrap_or("missing");
        if found != FRAGMENT_API_VERSION {
            return Err(FragmentError::ApiVersion {
                found: found.to_owned(),
            });
        }
        let document: Document = serde_json::from_value(value)?;
        document.check_names()?;
        Ok(Self {
            document,
            digest: hex::encode(Sha256::digest(text)),
        })
    }

    /// The fragment of the chart's default values.
    ///
    /// # Errors
    /// Never, which a test shows.
    pub fn of_default_values() -> Result<Self, FragmentError> {
        Self::parse(DEFAULT)
    }

    /// The SHA-256 of its text, in hex digits.
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The version of the chart that rendered it.
    pub fn version(&self) -> &str {
        &self.document.version
    }
}

impl Document {
    /// The sidecar is recognised by its name, and each volume and container can be there once.
    fn check_names(&self) -> Result<(), FragmentError> {
        let container = self.container.get("name").and_then(Value::as_str);
        if container != Some(SIDECAR) {
            return Err(FragmentError::Names(format!(
                "the container's name is {}, and must be {SIDECAR}",
                container.unwrap_or("missing")
            )));
        }
        let mut containers = vec![SIDECAR];
        let inits = self.init_containers.iter().map(|init| (init, "initContainers"));
        let volumes = self.volumes.iter().map(|volume| (volume, "volumes"));
        let mut seen_volumes = Vec::new();
        for (part, list) in inits.chain(volumes) {
            let names = if list == "volumes" {
                &mut seen_volumes
            } else {
                &mut containers
            };
            match part["name"].as_str() {
                None => {
                    return Err(FragmentError::Names(format!(
                        "{list} has an entry without a name"
                    )));
                }
                Some(name) if names.contains(&name) => {
                    return Err(FragmentError::Names(format!("{list} has {name} twice")));
                }
                Some(name) => names.push(name),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn default() -> Value {
        serde_json::from_str(DEFAULT).unwrap()
    }

    #[test]
    fn the_fragment_of_the_default_values_can_be_used_and_is_named_by_its_text() {
        let fragment = Fragment::of_default_values().unwrap();
        assert_eq!(fragment.digest(), hex::encode(Sha256::digest(DEFAULT.trim())));
        assert_eq!(fragment.version(), env!("CARGO_PKG_VERSION"));
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"fragment.json": DEFAULT.trim()}});
        assert_eq!(
            Fragment::parse(&map.to_string()).unwrap().digest(),
            fragment.digest()
        );
    }

    #[test]
    fn a_fragment_of_another_form_is_refused_by_its_version_and_not_by_a_field() {
        let mut other = default();
        other["apiVersion"] = "sidecar.beamline.dev/fragment.v2".into();
        other["surprise"] = 1.into();
        let error = Fragment::parse(&other.to_string()).unwrap_err().to_string();
        assert!(
            error.contains("fragment.v2") && error.contains("same version"),
            "{error}"
        );
        assert!(Fragment::parse("{}").unwrap_err().to_string().contains("missing"));
        assert!(matches!(Fragment::parse("{"), Err(FragmentError::Malformed(_))));
    }

    #[test]
    fn parts_without_a_name_of_their_own_are_refused() {
        let mut unknown = default();
        unknown["surprise"] = 1.into();
        let mut renamed = default();
        renamed["container"]["name"] = "other".into();
        let mut twice = default();
        twice["volumes"] = json!([{"name": "a"}, {"name": "a"}]);
        let mut again = default();
        again["initContainers"] = json!([{"name": "beamline-sidecar"}]);
        let mut nameless = default();
        nameless["initContainers"] = json!([{}]);
        for (fragment, part) in [
            (unknown, "surprise"),
            (renamed, "other"),
            (twice, "volumes has a twice"),
            (again, "initContainers has beamline-sidecar twice"),
            (nameless, "without a name"),
        ] {
            let error = Fragment::parse(&fragment.to_string()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
