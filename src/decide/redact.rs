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

/// The most bytes of one text in a line of the log.
const TEXT: usize = 256;

/// A text for a line of the log, cut if it is long.
pub fn brief(text: &str) -> Cow<'_, str> {
    if text.len() <= TEXT {
        return text.into();
    }
    let (shown, rest) = text.split_at(text.floor_char_boundary(TEXT));
    format!("{shown}… {} bytes more", rest.len()).into()
}

/// The context for a line of the log, as [`redact`] makes it, of about this many bytes at most. It costs no more than
/// that, however large the context is. Says whether anything is missing; what is, is said in its place.
pub fn redact_briefly(context: &Map<String, Value>, bytes: usize) -> (Map<String, Value>, bool) {
    let mut brief = Brief {
        left: bytes,
        is_cut: false,
    };
    let shown = brief.object(context);
    (shown, brief.is_cut)
}

/// A context on its way to the log.
struct Brief {
    /// Bytes that may still be shown.
    left: usize,
    is_cut: bool,
}

impl Brief {
    fn object(&mut self, object: &Map<String, Value>) -> Map<String, Value> {
        let mut shown = Map::new();
        for (at, (key, value)) in object.iter().enumerate() {
            if self.is_full() {
                shown.insert("…".into(), format!("{} more", object.len() - at).into());
                break;
            }
            let name = self.text(key);
            shown.insert(name, self.value(key, value));
        }
        shown
    }

    fn value(&mut self, key: &str, value: &Value) -> Value {
        if is_sensitive(key) {
            return self.scalar(REDACTED.into());
        }
        match value {
            _ if exact::integer(value).is_some() => self.scalar(value.clone()),
            Value::Object(object) => Value::Object(self.within_a_part(|brief| brief.object(object))),
            Value::Array(list) => self.within_a_part(|brief| brief.list(list)),
            Value::String(text) => {
                let text = self.text(text);
                if tells_a_secret(&text) {
                    REDACTED.into()
                } else {
                    text.into()
                }
            }
            other => self.scalar(other.clone()),
        }
    }

    /// Does something with a quarter of what is left, so that one large value does not hide the others.
    fn within_a_part<T>(&mut self, show: impl FnOnce(&mut Self) -> T) -> T {
        self.spend(0);
        let part = self.left / 4;
        let others = self.left - part;
        self.left = part;
        let shown = show(self);
        self.left += others;
        shown
    }

    fn list(&mut self, list: &[Value]) -> Value {
        let mut shown = Vec::new();
        for (at, value) in list.iter().enumerate() {
            if self.is_full() {
                shown.push(format!("… {} more", list.len() - at).into());
                break;
            }
            shown.push(self.value("", value));
        }
        Value::Array(shown)
    }

    fn text(&mut self, text: &str) -> String {
        let shown = brief(text);
        self.is_cut |= shown.len() != text.len();
        self.spend(shown.len());
        shown.into_owned()
    }

    fn scalar(&mut self, value: Value) -> Value {
        self.spend(0);
        value
    }

    /// Whatever is shown, something stands around it.
    fn spend(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes + 4);
    }

    fn is_full(&mut self) -> bool {
        self.is_cut |= self.left == 0;
        self.left == 0
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
        assert_eq!(
            redact_briefly(context.as_object().unwrap(), 4096),
            (redact(context.as_object().unwrap()), false)
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

    #[test]
    fn what_is_logged_of_a_context_is_bounded_and_says_what_is_missing() {
        let of = |context: Value| {
            let (shown, is_cut) = redact_briefly(context.as_object().unwrap(), 1024);
            (Value::Object(shown), is_cut)
        };
        let (shown, is_cut) = of(json!({"text": "é".repeat(1000), "n": 1}));
        assert_eq!(
            shown,
            json!({"text": format!("{}… 1744 bytes more", "é".repeat(128)), "n": 1})
        );
        assert!(is_cut);
        // However it is made up, and wherever the size is.
        let mut deep = json!("x".repeat(300));
        for _ in 0..100 {
            deep = json!({"k".repeat(300): [deep, 1]});
        }
        let keys: Map<String, Value> = (0..10_000).map(|n| (n.to_string(), Value::Null)).collect();
        for large in [
            json!({"list": vec![0; 100_000]}),
            json!({"list": vec![json!({}); 100_000]}),
            json!({"list": vec!["secret: x"; 100_000]}),
            json!({"deep": deep}),
            json!({"keys": keys}),
        ] {
            let (shown, is_cut) = of(large);
            let text = shown.to_string();
            assert!(is_cut, "{text}");
            assert!(text.len() < 4096, "{}: {text}", text.len());
            assert!(text.contains(" more"), "{text}");
        }
        assert_eq!(brief("short"), "short");
        // A word that is cut in two hides nothing and shows nothing.
        let text = format!("{} password: abc", "x".repeat(246));
        assert_eq!(of(json!({"text": text})).0["text"], REDACTED);
    }
}
