//! Reading configurations, with every mistake in its place.

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::{Path, Segment};

use crate::{Failure, Problem, fields::escape};

/// The configuration of an extension that has none: any key is a problem.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoConfig {}

/// The most problems that are reported.
const MOST: usize = 32;

/// Reads a configuration for a call. The host has had it checked.
#[cfg_attr(
    not(target_family = "wasm"),
    expect(dead_code, reason = "natively a test gives the configuration")
)]
pub(crate) fn read<C: DeserializeOwned>(text: &str) -> Result<C, Failure> {
    serde_json::from_str(text).map_err(|_| Failure::new("invalid_config", "the configuration cannot be read"))
}

/// Reads a configuration and finds its mistakes: what is wrong is noted and taken out, until the
/// rest can be read.
pub(crate) fn read_all<C: DeserializeOwned>(text: &str) -> Result<C, Vec<Problem>> {
    let mut value: Value = serde_json::from_str(text)
        .map_err(|error| vec![Problem::new("", format!("is not JSON: {error}"))])?;
    let mut problems: Vec<Problem> = Vec::new();
    loop {
        let error = match serde_path_to_error::deserialize::<_, C>(&value) {
            Ok(config) if problems.is_empty() => return Ok(config),
            Ok(_) => return Err(problems),
            Err(error) => error,
        };
        let message = error.inner().to_string();
        // A key that was taken out for its value is not missing.
        let taken_out = message
            .strip_prefix("missing field `")
            .and_then(|rest| rest.strip_suffix('`'))
            .map(|name| format!("{}/{}", pointer(error.path()), escape(name)))
            .is_some_and(|path| problems.iter().any(|problem| problem.path == path));
        if taken_out {
            return Err(problems);
        }
        let unknown = message
            .strip_prefix("unknown field `")
            .and_then(|rest| rest.split('`').next());
        let mut path = pointer(error.path());
        if let Some(name) = unknown
            && value.pointer(&path).is_none_or(|at| at.get(name).is_some())
        {
            path = format!("{path}/{}", escape(name));
        }
        let gone = take_out(&mut value, &path);
        problems.push(Problem::new(path, message));
        if !gone || problems.len() == MOST {
            return Err(problems);
        }
    }
}

fn pointer(path: &Path) -> String {
    let mut pointer = String::new();
    for segment in path {
        match segment {
            Segment::Seq { index } => pointer.push_str(&format!("/{index}")),
            Segment::Map { key } => pointer.push_str(&format!("/{}", escape(key))),
            // The case of an enum stands for the value that holds it.
            Segment::Enum { .. } | Segment::Unknown => {}
        }
    }
    pointer
}

/// Takes the key at `path` out of its object. Items of lists stay: the places after them would move.
fn take_out(value: &mut Value, path: &str) -> bool {
    let Some((parent, key)) = path.rsplit_once('/') else {
        return false;
    };
    match value.pointer_mut(parent) {
        Some(Value::Object(object)) => object
            .remove(&key.replace("~1", "/").replace("~0", "~"))
            .is_some(),
        Some(Value::Array(_)) => take_out(value, parent),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Config {
        max: u8,
        #[serde(default)]
        inner: Inner,
        #[serde(default)]
        list: Vec<u8>,
    }

    #[derive(Debug, Default, Deserialize, PartialEq)]
    #[serde(deny_unknown_fields)]
    struct Inner {
        #[serde(default)]
        on: bool,
    }

    fn paths(text: &str) -> Vec<String> {
        let problems = read_all::<Config>(text).unwrap_err();
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn a_good_configuration_is_read() {
        let config = read_all::<Config>(r#"{"max": 3, "inner": {"on": true}}"#).unwrap();
        assert_eq!(config.max, 3);
        assert!(config.inner.on);
    }

    #[test]
    fn every_mistake_is_told_in_its_place() {
        let mut found = paths(r#"{"max": "x", "inner": {"on": 1}, "list": [1, 900], "a/b": 1}"#);
        found.sort();
        assert_eq!(found, ["/a~1b", "/inner/on", "/list/1", "/max"]);
    }

    #[test]
    fn a_missing_key_is_told_once() {
        assert_eq!(paths("{}"), [""]);
        assert_eq!(paths(r#"{"max": 300}"#), ["/max"]);
        assert!(
            read_all::<Config>("{}").unwrap_err()[0]
                .message
                .contains("missing field `max`")
        );
    }

    #[test]
    fn what_is_no_object_is_one_problem() {
        assert_eq!(paths("7"), [""]);
        assert_eq!(paths("{"), [""]);
    }

    #[test]
    fn without_a_configuration_any_key_is_a_problem() {
        assert!(read_all::<NoConfig>("{}").is_ok());
        assert_eq!(read_all::<NoConfig>(r#"{"x": 1}"#).unwrap_err()[0].path, "/x");
    }

    #[test]
    fn problems_are_bounded() {
        let many: serde_json::Map<String, Value> = (0..100).map(|i| (format!("k{i}"), i.into())).collect();
        let problems = read_all::<NoConfig>(&Value::Object(many).to_string()).unwrap_err();
        assert_eq!(problems.len(), MOST);
    }
}
