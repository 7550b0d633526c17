//! JSON that is read when it is needed.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::Failure;

/// JSON text. Reading costs only those who ask for it, and what is passed on unread stays as it was.
#[derive(Clone, PartialEq, Eq)]
pub struct Json(String);

impl Json {
    /// Takes text that is JSON already; the host checks it.
    pub fn from_text(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// `{}`.
    pub fn empty_object() -> Self {
        Self("{}".into())
    }

    /// Writes a value out.
    ///
    /// # Errors
    /// `unwritable_json` where JSON cannot hold the value, such as a map whose keys are no strings.
    pub fn write(value: &impl Serialize) -> Result<Self, Failure> {
        serde_json::to_string(value)
            .map(Self)
            .map_err(|error| Failure::new("unwritable_json", error.to_string()))
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }

    /// The text, to keep.
    pub fn into_text(self) -> String {
        self.0
    }

    /// Reads a value of a type that describes what is expected; strings may be borrowed.
    ///
    /// # Errors
    /// `unexpected_json` where the text describes no such value. What was found is not repeated.
    pub fn read<'a, T: Deserialize<'a>>(&'a self) -> Result<T, Failure> {
        serde_json::from_str(&self.0).map_err(|error| {
            Failure::new(
                "unexpected_json",
                format!(
                    "not what was expected at line {} column {}",
                    error.line(),
                    error.column()
                ),
            )
        })
    }

    /// Reads whatever is there.
    ///
    /// # Errors
    /// `unexpected_json` where the text is not JSON, or nests deeper than 127 levels.
    pub fn value(&self) -> Result<Value, Failure> {
        self.read()
    }
}

impl From<&Value> for Json {
    fn from(value: &Value) -> Self {
        Self(value.to_string())
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_what_a_type_describes_and_borrows() {
        #[derive(Deserialize)]
        struct Prompt<'a> {
            prompt: &'a str,
        }
        let json = Json::from_text(r#"{"prompt": "hello", "more": 1}"#);
        assert_eq!(json.read::<Prompt<'_>>().unwrap().prompt, "hello");
        assert_eq!(json.value().unwrap(), json!({"prompt": "hello", "more": 1}));
    }

    #[test]
    fn a_failure_does_not_repeat_what_was_found() {
        let failure = Json::from_text(r#"{"card": "4111111111111111"}"#)
            .read::<Vec<u8>>()
            .unwrap_err();
        assert_eq!(failure.code, "unexpected_json");
        assert!(!failure.message.contains("4111"), "{}", failure.message);
        let failure = Json::from_text(r#""4111111111111111""#).read::<u8>().unwrap_err();
        assert!(!failure.message.contains("4111"), "{}", failure.message);
    }

    #[test]
    fn what_json_cannot_hold_is_a_failure() {
        let keys = std::collections::BTreeMap::from([(vec![1], 1)]);
        assert_eq!(Json::write(&keys).unwrap_err().code, "unwritable_json");
    }
}
