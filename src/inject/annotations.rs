//! The annotations with which a pod overrides parts of the fragment: each is checked, and a bad one refuses the pod by the
//! annotation's name. A pod that ran with something else than its author wrote would hide every typing error.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{
    names::{FRAGMENT_SHA256, INJECT_LABEL, PREFIX, STATUS, VERSION},
    quantity::{amount, is_quantity},
};

/// What an annotation can override, if the fragment allows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Override {
    /// The sidecar's image.
    Image,
    /// How much it logs.
    LogLevel,
    /// CPU that is set aside for it.
    CpuRequest,
    /// CPU that it may use at most.
    CpuLimit,
    /// Memory that is set aside for it.
    MemoryRequest,
    /// Memory that it may use at most.
    MemoryLimit,
    /// Whether it is a native sidecar.
    Native,
    /// HEIR's URL.
    StoreUrl,
    /// What lookups get once the policies have expired.
    FailMode,
}

const ALL: [Override; 9] = [
    Override::Image,
    Override::LogLevel,
    Override::CpuRequest,
    Override::CpuLimit,
    Override::MemoryRequest,
    Override::MemoryLimit,
    Override::Native,
    Override::StoreUrl,
    Override::FailMode,
];

const LOG_LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// Why a pod is refused because of an annotation.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadAnnotation {
    /// The value makes no sense.
    #[error("the annotation {PREFIX}{name} is {value:?}, and must be {wanted}")]
    Value {
        /// The annotation, without the prefix.
        name: &'static str,
        /// Its value, or the beginning of it.
        value: String,
        /// What would be valid.
        wanted: &'static str,
    },
    /// The fragment does not allow it.
    #[error(
        "the annotation {PREFIX}{name} is not allowed here: add {name} to allowOverrides of the injector, or remove it"
    )]
    NotAllowed {
        /// The annotation, without the prefix.
        name: &'static str,
    },
}

/// What the annotations of a pod ask for.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Overrides {
    /// Whether the sidecar is a native one, where the pod says so.
    pub(super) native: Option<bool>,
    values: Vec<(Override, String)>,
}

impl Override {
    /// The annotation, without the prefix.
    fn name(self) -> &'static str {
        match self {
            Self::Image => "image",
            Self::LogLevel => "log-level",
            Self::CpuRequest => "cpu-request",
            Self::CpuLimit => "cpu-limit",
            Self::MemoryRequest => "memory-request",
            Self::MemoryLimit => "memory-limit",
            Self::Native => "native",
            Self::StoreUrl => "store-url",
            Self::FailMode => "fail-mode",
        }
    }

    /// What a valid value is, where this is none.
    fn fault(self, value: &str) -> Option<&'static str> {
        let (is_valid, wanted) = match self {
            Self::Image => (
                is_image(value),
                "a reference to an image, such as registry.example/beamline-sidecar:1.0",
            ),
            Self::LogLevel => (
                LOG_LEVELS.contains(&value),
                "off, error, warn, info, debug or trace",
            ),
            Self::CpuRequest | Self::CpuLimit => {
                (is_quantity(value), "an amount of CPU, such as 200m or 0.5")
            }
            Self::MemoryRequest | Self::MemoryLimit => {
                (is_quantity(value), "an amount of memory, such as 64Mi")
            }
            Self::Native => (matches!(value, "true" | "false"), "\"true\" or \"false\""),
            Self::StoreUrl => (is_url(value), "a URL that begins with http:// or https://"),
            Self::FailMode => (matches!(value, "open" | "closed"), "open or closed"),
        };
        (!is_valid).then_some(wanted)
    }
}

impl Overrides {
    /// Reads them. Annotations with the prefix that mean nothing are returned as warnings.
    pub(super) fn read(
        annotations: Option<&Map<String, Value>>,
        allowed: &[Override],
    ) -> Result<(Self, Vec<String>), BadAnnotation> {
        let (mut overrides, mut warnings) = (Self::default(), Vec::new());
        for (key, value) in annotations.into_iter().flatten() {
            let Some(name) = key.strip_prefix(PREFIX) else {
                continue;
            };
            let Some(known) = ALL.into_iter().find(|known| known.name() == name) else {
                if ![INJECT_LABEL, STATUS, FRAGMENT_SHA256, VERSION].contains(&key.as_str()) {
                    warnings.push(format!("the annotation {key} is not known and has no effect"));
                } else if key == INJECT_LABEL {
                    warnings.push(format!("{key} is a label: as an annotation it has no effect"));
                }
                continue;
            };
            if !allowed.contains(&known) {
                return Err(BadAnnotation::NotAllowed { name: known.name() });
            }
            let text = value.as_str().unwrap_or_default();
            if let Some(wanted) = known.fault(text) {
                return Err(BadAnnotation::Value {
                    name: known.name(),
                    value: text.chars().take(64).collect(),
                    wanted,
                });
            }
            match known {
                Override::Native => overrides.native = Some(text == "true"),
                _ => overrides.values.push((known, text.to_owned())),
            }
        }
        Ok((overrides, warnings))
    }

    /// Changes the sidecar's container.
    pub(super) fn apply(&self, container: &mut Map<String, Value>) {
        for (what, value) in &self.values {
            match what {
                Override::Image => {
                    container.insert("image".to_owned(), value.as_str().into());
                }
                Override::LogLevel => set_variable(container, "BEAMLINE_LOG_FILTER", value),
                Override::StoreUrl => set_variable(container, "BEAMLINE_HEIR_URL", value),
                Override::FailMode => {
                    let expired = if value == "open" { "serve" } else { "refuse" };
                    set_variable(container, "BEAMLINE_REFRESH_WHEN_EXPIRED", expired);
                }
                Override::CpuRequest => set_resource(container, "requests", "cpu", value),
                Override::CpuLimit => set_resource(container, "limits", "cpu", value),
                Override::MemoryRequest => set_resource(container, "requests", "memory", value),
                Override::MemoryLimit => set_resource(container, "limits", "memory", value),
                // Decides between two forms of the container, before this is called.
                Override::Native => {}
            }
        }
        self.fit_request(container, "cpu", Override::CpuRequest, Override::CpuLimit);
        self.fit_request(
            container,
            "memory",
            Override::MemoryRequest,
            Override::MemoryLimit,
        );
    }

    /// A pod that lowers a limit alone means less of it: with a request above its limit it would be refused.
    fn fit_request(
        &self,
        container: &mut Map<String, Value>,
        resource: &str,
        request: Override,
        limit: Override,
    ) {
        let wanted = |what| self.values.iter().find(|(known, _)| *known == what);
        let (None, Some((_, limit))) = (wanted(request), wanted(limit)) else {
            return;
        };
        let requested = container
            .get("resources")
            .and_then(|resources| amount(resources["requests"][resource].as_str()?));
        if requested > amount(limit) {
            set_resource(container, "requests", resource, limit);
        }
    }
}

fn set_variable(container: &mut Map<String, Value>, name: &str, value: &str) {
    let variables = container.entry("env").or_insert_with(|| json!([]));
    let Some(variables) = variables.as_array_mut() else {
        return;
    };
    let variable = json!({"name": name, "value": value});
    match variables.iter_mut().find(|variable| variable["name"] == name) {
        Some(there) => *there = variable,
        None => variables.push(variable),
    }
}

fn set_resource(container: &mut Map<String, Value>, list: &str, resource: &str, amount: &str) {
    let resources = container.entry("resources").or_insert_with(|| json!({}));
    if let Some(resources) = resources.as_object_mut() {
        let amounts = resources.entry(list).or_insert_with(|| json!({}));
        amounts[resource] = amount.into();
    }
}

fn is_image(text: &str) -> bool {
    let is_valid = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/:@".contains(&byte);
    text.len() <= 512
        && text.bytes().all(is_valid)
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text.ends_with(|last: char| last.is_ascii_alphanumeric())
}

fn is_url(text: &str) -> bool {
    let scheme = |scheme| text.starts_with(scheme);
    text.len() <= 2048
        && (scheme("http://") || scheme("https://"))
        && text
            .parse::<http::Uri>()
            .is_ok_and(|url| url.host().is_some_and(|host| !host.is_empty()) && url.query().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(annotations: Value, allowed: &[Override]) -> Result<(Overrides, Vec<String>), BadAnnotation> {
        Overrides::read(annotations.as_object(), allowed)
    }

    #[test]
    fn every_annotation_has_its_effect_on_the_container() {
        let annotations = json!({
            "sidecar.beamline.dev/image": "localhost:5000/a/b@sha256:00",
            "sidecar.beamline.dev/log-level": "debug",
            "sidecar.beamline.dev/cpu-request": "10m",
            "sidecar.beamline.dev/cpu-limit": "1",
            "sidecar.beamline.dev/memory-request": "32Mi",
            "sidecar.beamline.dev/memory-limit": "64Mi",
            "sidecar.beamline.dev/native": "false",
            "sidecar.beamline.dev/store-url": "https://heir.example:8443/base",
            "sidecar.beamline.dev/fail-mode": "closed",
            "another.example/image": "x y",
        });
        let (overrides, warnings) = read(annotations, &ALL).unwrap();
        assert_eq!((overrides.native, warnings), (Some(false), Vec::<String>::new()));
        let container = json!({
            "image": "before", "env": [{"name": "BEAMLINE_LOG_FILTER", "value": "info"}],
            "resources": {"requests": {"cpu": "50m", "memory": "64Mi"}},
        });
        let mut container = container.as_object().unwrap().clone();
        overrides.apply(&mut container);
        let wanted = json!({
            "image": "localhost:5000/a/b@sha256:00",
            "env": [
                {"name": "BEAMLINE_LOG_FILTER", "value": "debug"},
                {"name": "BEAMLINE_REFRESH_WHEN_EXPIRED", "value": "refuse"},
                {"name": "BEAMLINE_HEIR_URL", "value": "https://heir.example:8443/base"},
            ],
            "resources": {"requests": {"cpu": "10m", "memory": "32Mi"}, "limits": {"cpu": "1", "memory": "64Mi"}},
        });
        assert_eq!(
            container["env"].as_array().unwrap().len(),
            wanted["env"].as_array().unwrap().len()
        );
        for variable in wanted["env"].as_array().unwrap() {
            assert!(
                container["env"].as_array().unwrap().contains(variable),
                "{variable}"
            );
        }
        assert_eq!(container["image"], wanted["image"]);
        assert_eq!(container["resources"], wanted["resources"]);
    }

    #[test]
    fn a_limit_below_the_request_takes_the_request_with_it_unless_the_pod_says_otherwise() {
        let resources = |annotations| {
            let (overrides, _) = read(annotations, &ALL).unwrap();
            let container = json!({"resources": {"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"memory": "256Mi"}}});
            let mut container = container.as_object().unwrap().clone();
            overrides.apply(&mut container);
            container["resources"].clone()
        };
        let lowered = resources(
            json!({"sidecar.beamline.dev/memory-limit": "48Mi", "sidecar.beamline.dev/cpu-limit": "0.2"}),
        );
        let wanted =
            json!({"requests": {"cpu": "50m", "memory": "48Mi"}, "limits": {"cpu": "0.2", "memory": "48Mi"}});
        assert_eq!(lowered, wanted);
        let said = json!({"sidecar.beamline.dev/memory-limit": "48Mi", "sidecar.beamline.dev/memory-request": "60Mi"});
        assert_eq!(resources(said)["requests"]["memory"], "60Mi");
    }

    #[test]
    fn a_bad_value_is_refused_by_the_name_of_its_annotation() {
        for (name, value) in [
            ("image", json!("")),
            ("image", json!("a b")),
            ("log-level", json!("chatty")),
            ("cpu-request", json!("a lot")),
            ("cpu-limit", json!("-1")),
            ("memory-request", json!("64MB")),
            ("memory-limit", json!("")),
            ("native", json!("yes")),
            ("native", json!(true)),
            ("store-url", json!("heir:8080")),
            ("store-url", json!("http://")),
            ("store-url", json!("file:///etc/passwd")),
            ("fail-mode", json!("sometimes")),
        ] {
            let key = format!("{PREFIX}{name}");
            let mut annotations = Map::new();
            annotations.insert(key.clone(), value);
            let error = Overrides::read(Some(&annotations), &ALL).unwrap_err().to_string();
            assert!(error.contains(&key) && error.contains("must be"), "{error}");
        }
    }

    #[test]
    fn what_is_not_allowed_is_refused_and_what_is_not_known_is_warned_of() {
        let error = read(json!({"sidecar.beamline.dev/image": "x"}), &[Override::LogLevel]).unwrap_err();
        assert_eq!(error, BadAnnotation::NotAllowed { name: "image" });
        assert!(error.to_string().contains("allowOverrides"));
        let (overrides, warnings) = read(
            json!({
                "sidecar.beamline.dev/log-levle": "debug",
                "sidecar.beamline.dev/inject": "enabled",
                "sidecar.beamline.dev/status": "injected",
            }),
            &ALL,
        )
        .unwrap();
        assert_eq!(overrides, Overrides::default());
        assert_eq!(warnings.len(), 2, "{warnings:?}");
        assert!(warnings.iter().any(|warning| warning.contains("log-levle")));
        assert!(warnings.iter().any(|warning| warning.contains("is a label")));
    }
}
