//! Comparison of wanted and actual values.

use serde_json::Value;

use crate::policy::json_path;

/// A place in which the two differ.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Difference {
    pub path: String,
    pub wanted: Value,
    pub got: Value,
}

/// Adds the differences: objects must have at least the wanted members, all other values must be equal.
pub(super) fn at_least(path: &str, wanted: &Value, got: &Value, differences: &mut Vec<Difference>) {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            for (key, wanted) in wanted {
                at_least(
                    &json_path::member(path, key),
                    wanted,
                    got.get(key).unwrap_or(&Value::Null),
                    differences,
                );
            }
        }
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            for (index, (wanted, got)) in wanted.iter().zip(got).enumerate() {
                at_least(&format!("{path}[{index}]"), wanted, got, differences);
            }
        }
        (Value::Number(a), Value::Number(b)) if close(a, b) => {}
        _ if wanted == got => {}
        _ => differences.push(Difference {
            path: path.to_owned(),
            wanted: wanted.clone(),
            got: got.clone(),
        }),
    }
}

/// Whether two numbers are equal up to rounding: a case says 0.7, however the value was computed.
fn close(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    match (a.as_f64(), b.as_f64()) {
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
        _ => false,
    }
}
