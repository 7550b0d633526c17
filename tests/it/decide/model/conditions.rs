//! `when` (2.8).

use serde_json::{Map, Value};

/// Whether a condition is true; `status` is what the context's is, or what was found in its place.
pub(super) fn holds(when: &Map<String, Value>, context: &Map<String, Value>, status: Option<&str>) -> bool {
    let found: Option<Value> = status.map(Into::into);
    let value = |key: &str| match &found {
        Some(status) if key == "status" => Some(status),
        _ => context.get(key),
    };
    when.iter().all(|(key, wanted)| match (key.as_str(), wanted) {
        ("==" | "!=" | ">" | "<" | ">=" | "<=" | "in", Value::Array(operands)) if operands.len() == 2 => {
            let operand = |operand: &Value| match operand["var"].as_str() {
                Some(path) => {
                    let path = path.strip_prefix("context.").unwrap_or(path);
                    let (first, rest) = path.split_once('.').unwrap_or((path, ""));
                    let deep = |value: &Value| {
                        rest.split('.')
                            .filter(|key| !key.is_empty())
                            .try_fold(value.clone(), |value, key| value.get(key).cloned())
                    };
                    value(first).and_then(deep)
                }
                None => Some(operand.clone()),
            };
            match (operand(&operands[0]), operand(&operands[1])) {
                (Some(left), Some(right)) => operator(key, &left, &right),
                _ => false,
            }
        }
        (_, Value::Array(list)) => {
            value(key).is_some_and(|found| list.iter().any(|one| matches(key, one, found)))
        }
        (_, one) => value(key).is_some_and(|found| matches(key, one, found)),
    })
}

fn operator(operator: &str, left: &Value, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64().partial_cmp(&right.as_f64()),
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        _ => None,
    };
    match operator {
        "==" => left == right,
        "!=" => left != right,
        ">" => order.is_some_and(|order| order.is_gt()),
        "<" => order.is_some_and(|order| order.is_lt()),
        ">=" => order.is_some_and(|order| order.is_ge()),
        "<=" => order.is_some_and(|order| order.is_le()),
        _ => right.as_array().is_some_and(|list| list.contains(left)),
    }
}

/// Equal, or for a status of its class.
fn matches(key: &str, wanted: &Value, found: &Value) -> bool {
    let class = wanted.as_str().filter(|class| {
        class.len() == 3
            && class.ends_with("xx")
            && ('1'..='5').contains(&class.chars().next().unwrap_or('x'))
    });
    let number = match found {
        Value::String(text) if text.len() == 3 => text.parse().ok(),
        Value::Number(number) => number.as_u64(),
        _ => None,
    };
    let in_class = class.zip(number).is_some_and(|(class, number)| {
        (100..1_000).contains(&number) && class.starts_with(&(number / 100).to_string())
    });
    wanted == found || key == "status" && in_class
}
