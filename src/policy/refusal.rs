//! The platform's own words for a refused policy: its first problem, in the platform's order.

use serde::Serialize;
use serde_json::{Map, Value};

use super::{PolicyId, RoutingPolicy, TenantId, read_object};

/// Why a policy is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Refusal {
    /// The platform's name for what is wrong.
    pub context: &'static str,
    /// The details, if `context` alone is not enough.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<Reason>,
    /// The required fields that are missing.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub missing_fields: Vec<&'static str>,
}

/// The details of a problem.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(untagged)]
pub enum Reason {
    /// A sentence.
    Text(String),
    /// A weight that is not a fraction.
    Weight {
        /// The provider whose weight it is.
        provider: String,
        /// The weight as it was checked: a percentage is converted to a fraction before.
        weight: Value,
        /// The sentence about it.
        reason: &'static str,
    },
}

impl Reason {
    /// Its sentence.
    pub fn text(&self) -> &str {
        match self {
            Self::Text(text) => text,
            Self::Weight { reason, .. } => reason,
        }
    }
}

impl Refusal {
    fn weight(provider: &str, weight: Value) -> Self {
        let reason = Reason::Weight {
            provider: provider.to_owned(),
            weight,
            reason: "Weight must be a number between 0.0 and 1.0",
        };
        Self {
            reason: Some(reason),
            ..Self::of("Invalid weights")
        }
    }

    fn of(context: &'static str) -> Self {
        Self {
            context,
            reason: None,
            missing_fields: Vec::new(),
        }
    }

    fn because(context: &'static str, reason: impl Into<String>) -> Self {
        Self {
            reason: Some(Reason::Text(reason.into())),
            ..Self::of(context)
        }
    }
}

/// The first problem of a value that was received as a record.
pub fn refuse_value(record: &Value) -> Option<Refusal> {
    match record {
        Value::Object(record) => refuse_record(record),
        _ => Some(Refusal::of("Policy must be a map")),
    }
}

/// The first problem of a record that names its tenant and policy itself. Its weights are parsed already and are never
/// rescaled.
pub fn refuse_record(record: &Map<String, Value>) -> Option<Refusal> {
    let missing: Vec<_> = ["policy_id", "tenant_id", "weights"]
        .into_iter()
        .filter(|field| !record.contains_key(*field))
        .collect();
    if !missing.is_empty() {
        let context = "Missing required fields: policy_id, tenant_id, or weights";
        return Some(Refusal {
            missing_fields: missing,
            ..Refusal::of(context)
        });
    }
    if let Some(reason) = refuse_id("policy_id", record.get("policy_id")) {
        return Some(Refusal::because("Invalid policy_id", reason));
    }
    if let Some(reason) = refuse_id("tenant_id", record.get("tenant_id")) {
        return Some(Refusal::because("Invalid tenant_id", reason));
    }
    let weights = match record.get("weights") {
        Some(Value::Object(weights)) if weights.is_empty() => {
            return Some(Refusal::because("Invalid weights", "weights cannot be empty"));
        }
        Some(Value::Object(weights)) => weights,
        _ => return Some(Refusal::because("Invalid weights", "weights must be an object")),
    };
    let in_range = |weight: &Value| {
        weight
            .as_f64()
            .is_some_and(|weight| (0.0..=1.0).contains(&weight))
    };
    if let Some((provider, weight)) = weights.iter().find(|(_, weight)| !in_range(weight)) {
        return Some(Refusal::weight(provider, weight.clone()));
    }
    refuse_sticky(record.get("sticky")).or_else(|| refuse_fallback(record.get("fallback")))
}

/// The first problem of a document that was received for a tenant and a policy.
pub fn refuse_document(document: &Map<String, Value>) -> Option<Refusal> {
    let (policy, _) = read_object(document);
    refuse_weights(document, &policy)
        .or_else(|| refuse_sticky(document.get("sticky")))
        .or_else(|| refuse_fallback(document.get("fallback")))
}

fn refuse_weights(document: &Map<String, Value>, policy: &RoutingPolicy) -> Option<Refusal> {
    let listed = document.get("providers").is_some_and(Value::is_array);
    match document.get("weights") {
        Some(weights) if !listed && !weights.is_object() => {
            return Some(Refusal::because("Invalid weights", "weights must be an object"));
        }
        Some(Value::Object(weights)) if !listed => {
            if let Some((provider, weight)) = weights.iter().find(|(_, weight)| !weight.is_number()) {
                return Some(Refusal::weight(provider, weight.clone()));
            }
        }
        _ => {}
    }
    if policy.providers.is_empty() {
        return Some(Refusal::because("Invalid weights", "weights cannot be empty"));
    }
    let outside = policy
        .providers
        .iter()
        .find(|provider| !(0.0..=1.0).contains(&provider.weight));
    outside.map(|provider| Refusal::weight(provider.id.as_str(), provider.weight.into()))
}

/// The problem of an id, in the platform's words.
pub fn refuse_id(field: &str, id: Option<&Value>) -> Option<String> {
    use super::InvalidId;
    let text = match id {
        None | Some(Value::Null) => return Some(format!("{field} is required")),
        Some(Value::String(text)) => text,
        Some(_) => return Some(format!("{field} must be a string")),
    };
    let checked = match field {
        "tenant_id" => TenantId::parse(text).err(),
        _ => PolicyId::parse(text).err(),
    };
    let lower = text.to_ascii_lowercase();
    let scripts = ["document.cookie", "document.write", "window.location"];
    match checked {
        None if scripts.iter().any(|script| lower.contains(script)) => {
            Some(format!("{field} contains security pattern"))
        }
        None => None,
        Some(InvalidId::Empty) => Some(format!("{field} cannot be empty")),
        Some(InvalidId::TooLong) => Some(format!("{field} must be 1-255 characters")),
        Some(InvalidId::Character) => Some(format!("{field} contains invalid characters")),
        Some(_) => Some(format!("{field} validation failed")),
    }
}

/// The problem of `sticky`.
pub fn refuse_sticky(sticky: Option<&Value>) -> Option<Refusal> {
    let sticky = match sticky? {
        Value::Object(sticky) => sticky,
        Value::Null => return None,
        _ => return Some(Refusal::of("sticky must be an object")),
    };
    match sticky.get("enabled") {
        None => return Some(Refusal::of("sticky.enabled is required")),
        Some(Value::Bool(_)) => {}
        Some(_) => return Some(Refusal::of("sticky.enabled must be a boolean")),
    }
    match sticky.get("session_key") {
        None => None,
        Some(Value::String(key)) if (1..=255).contains(&key.len()) => None,
        Some(Value::String(_)) => Some(Refusal::of("sticky.session_key must be 1-255 characters")),
        Some(_) => Some(Refusal::of("sticky.session_key must be a string")),
    }
}

fn refuse_fallback(fallback: Option<&Value>) -> Option<Refusal> {
    match fallback? {
        Value::String(_) | Value::Null => None,
        Value::Object(fallback) => match fallback.get("provider") {
            None | Some(Value::String(_)) => None,
            Some(_) => Some(Refusal::of("fallback.provider must be a string")),
        },
        _ => Some(Refusal::of("fallback must be an object or string")),
    }
}
