//! The fields of a record, read one by one. Reading goes on after a mistake, so that all of them are reported at once.

use serde_json::{Map, Value};

use crate::policy::{Problem, json_path};

/// Reads fields, and collects the problems that it finds.
#[derive(Default)]
pub(super) struct Reader {
    pub(super) problems: Vec<Problem>,
    /// Whether one of the problems is an error.
    pub(super) failed: bool,
}

impl Reader {
    pub(super) fn error(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.failed = true;
        self.problems.push(Problem::error(path, message, remedy));
    }

    pub(super) fn warn(
        &mut self,
        path: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) {
        self.problems.push(Problem::warning(path, message, remedy));
    }

    /// Warns of keys that are not among the known ones.
    pub(super) fn unknown(&mut self, at: &str, fields: &Map<String, Value>, known: &[&str]) {
        for key in fields.keys().filter(|key| !known.contains(&key.as_str())) {
            self.warn(
                json_path::member(at, key),
                "there is no such key here",
                "it means nothing: correct or remove it",
            );
        }
    }

    /// A list of objects, each with its path.
    pub(super) fn list(
        &mut self,
        fields: &Map<String, Value>,
        key: &str,
    ) -> Vec<(String, Map<String, Value>)> {
        let list = match fields.get(key) {
            None | Some(Value::Null) => return Vec::new(),
            Some(Value::Array(list)) => list,
            Some(_) => {
                self.error(
                    format!("$.{key}"),
                    format!("{key} is not a list"),
                    "write a list of objects",
                );
                return Vec::new();
            }
        };
        let mut entries = Vec::with_capacity(list.len());
        for (index, entry) in list.iter().enumerate() {
            let at = format!("$.{key}[{index}]");
            match entry {
                Value::Object(entry) => entries.push((at, entry.clone())),
                _ => self.error(at, "this is not an object", "write {…}"),
            }
        }
        entries
    }

    pub(super) fn object(&mut self, at: &str, fields: &Map<String, Value>, key: &str) -> Map<String, Value> {
        match fields.get(key) {
            None | Some(Value::Null) => Map::new(),
            Some(Value::Object(object)) => object.clone(),
            Some(_) => {
                self.error(
                    json_path::member(at, key),
                    format!("{key} is not an object"),
                    "write {…}",
                );
                Map::new()
            }
        }
    }

    pub(super) fn boolean(
        &mut self,
        at: &str,
        fields: &Map<String, Value>,
        key: &str,
        default: bool,
    ) -> bool {
        match fields.get(key) {
            None | Some(Value::Null) => default,
            Some(Value::Bool(value)) => *value,
            Some(_) => {
                self.error(
                    json_path::member(at, key),
                    format!("{key} is not true or false"),
                    "write true or false",
                );
                default
            }
        }
    }

    /// A whole number within bounds; `None` where it is absent or wrong.
    pub(super) fn number(
        &mut self,
        at: &str,
        fields: &Map<String, Value>,
        key: &str,
        min: u32,
        max: u32,
    ) -> Option<u32> {
        let value = fields.get(key).filter(|value| !value.is_null())?;
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let within = number.filter(|number| (min..=max).contains(number));
        if within.is_none() {
            self.error(
                json_path::member(at, key),
                format!("{key} is {value}"),
                format!("write a whole number from {min} to {max}"),
            );
        }
        within
    }
}
