//! Removes secrets and personal data from logs and explanations, by the names of their keys.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::policy::exact;

/// The text in their place.
pub const REDACTED: &str = "[REDACTED]";

const SENSITIVE: [&str; 15] = [
    "password",
    "api_key",
    "secret",
    "token",
    "access_token",
    "refresh_token",
    "authorization",
    "credit_card",
    "ssn",
    "email",
    "phone",
    "bearer",
    "x-api-key",
    "x-auth-token",
    "x-authorization",
];

/// Whether values under this key must not be shown.
pub fn is_sensitive(key: &str) -> bool {
    SENSITIVE.iter().any(|name| key.eq_ignore_ascii_case(name))
}

/// Whether a text seems to contain a credential: one of the typical words, followed by `:`, `=` or, for a bearer, a
/// space.
fn tells_a_secret(text: &str) -> bool {
    let lower = text.to_ascii_lowercase();
    ["key", "secret", "token", "password", "authorization", "bearer"]
        .iter()
        .any(|word| {
            lower.match_indices(word).any(|(at, _)| {
                let rest = lower.get(at + word.len()..).unwrap_or_default();
                let rest = rest
                    .strip_prefix(['"', '\''])
                    .unwrap_or(rest)
                    .trim_start_matches(' ');
                rest.starts_with([':', '=']) || *word == "bearer" && !rest.is_empty()
            })
        })
}

/// The context for a log line.
pub fn redact(context: &Map<String, Value>) -> Map<String, Value> {
    context
        .iter()
        .map(|(key, value)| (key.clone(), redact_value(key, value)))
        .collect()
}

fn redact_value(key: &str, value: &Value) -> Value {
    if is_sensitive(key) {
        return REDACTED.into();
    }
    match value {
        Value::Object(object) => Value::Object(redact(object)),
        Value::Array(list) => list.iter().map(|value| redact_value("", value)).collect(),
        Value::String(text) if tells_a_secret(text) => REDACTED.into(),
        other => other.clone(),
    }
}

/// A value as a step of an explanation shows it: texts bare, everything else as JSON.
pub(super) fn shown<'a>(key: &str, value: &'a Value) -> Cow<'a, str> {
    match value {
        _ if is_sensitive(key) => REDACTED.into(),
        Value::String(text) => text.as_str().into(),
        other => exact::written(other.to_string()).into(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_and_personal_data_are_hidden_at_any_depth() {
        let context = json!({
            "tenant_id": "acme", "Email": "a@b.c", "user": {"phone": 1, "name": "x"},
            "list": [{"token": "t"}, "Authorization: Basic abc", "the key of C"], "n": 1,
        });
        assert_eq!(
            Value::Object(redact(context.as_object().unwrap())),
            json!({
                "tenant_id": "acme", "Email": REDACTED, "user": {"phone": REDACTED, "name": "x"},
                "list": [{"token": REDACTED}, REDACTED, "the key of C"], "n": 1,
            })
        );
        for text in [
            "api_key=abc",
            "Bearer abc",
            "secret: x",
            "\"token\": 1",
            "password = x",
        ] {
            assert!(tells_a_secret(text), "{text}");
        }
        for text in ["", "monkey business", "tokens", "bearer"] {
            assert!(!tells_a_secret(text), "{text}");
        }
    }
}
