//! Any condition on any context: `{"when": …, "context": …}`. The answer is that of the rule written down a second
//! time, plainly, and a condition that was written out answers the same.

#![no_main]

use beamline_sidecar::policy::{Condition, ConditionRules, Facts};
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    let Ok(Value::Object(input)) = serde_json::from_slice(data) else {
        return;
    };
    let (Some(Value::Object(when)), Some(Value::Object(context))) = (input.get("when"), input.get("context"))
    else {
        return;
    };
    let condition = Condition::parse(when);
    let written = Condition::parse(&condition.to_json());
    assert_eq!(condition, written);
    let facts = Facts::of(context);
    for status_classes in [false, true] {
        let rules = ConditionRules { status_classes };
        let plain = when
            .iter()
            .all(|(key, value)| plainly(key, value, context, status_classes));
        assert_eq!(condition.holds(facts, rules), plain);
    }
    if let Some(status) = input.get("status") {
        let replaced = Facts {
            context,
            status: Some(status),
        };
        let mut context = context.clone();
        context.insert("status".into(), status.clone());
        let rules = ConditionRules::default();
        assert_eq!(
            condition.holds(replaced, rules),
            condition.holds(Facts::of(&context), rules)
        );
    }
});

fn plainly(key: &str, value: &Value, context: &Map<String, Value>, classes: bool) -> bool {
    if let (true, Some([left, right])) = (
        ["==", "!=", "<", ">", "<=", ">=", "in"].contains(&key),
        value.as_array().map(Vec::as_slice),
    ) {
        let (Some(left), Some(right)) = (operand(left, context), operand(right, context)) else {
            return false;
        };
        return match key {
            "==" => left == right,
            "!=" => left != right,
            "in" => right
                .as_array()
                .is_some_and(|list| list.iter().any(|one| one == left)),
            _ => ordered(key, left, right),
        };
    }
    let Some(found) = context.get(key) else {
        return false;
    };
    let one_of = value.as_array().cloned().unwrap_or_else(|| vec![value.clone()]);
    one_of.iter().any(|wanted| {
        wanted == found
            || classes && key == "status" && wanted.as_str().is_some_and(|class| in_class(class, found))
    })
}

fn operand<'a>(operand: &'a Value, context: &'a Map<String, Value>) -> Option<&'a Value> {
    let Some(path) = operand
        .as_object()
        .filter(|object| object.len() == 1)
        .and_then(|object| object.get("var")?.as_str())
    else {
        return Some(operand);
    };
    let mut keys = path.strip_prefix("context.").unwrap_or(path).split('.');
    let first = context.get(keys.next()?);
    keys.fold(first, |value, key| value?.as_object()?.get(key))
}

fn ordered(operator: &str, left: &Value, right: &Value) -> bool {
    let order = match (left, right) {
        (Value::String(left), Value::String(right)) => Some(left.cmp(right)),
        (Value::Number(left), Value::Number(right)) => {
            // Floats are printed with a point or an exponent: whatever parses is a whole number.
            let whole = |number: &serde_json::Number| number.to_string().parse::<i128>().ok();
            match (whole(left), whole(right)) {
                (Some(left), Some(right)) => Some(left.cmp(&right)),
                _ => left.as_f64().partial_cmp(&right.as_f64()),
            }
        }
        _ => None,
    };
    order.is_some_and(|order| match operator {
        "<" => order.is_lt(),
        ">" => order.is_gt(),
        "<=" => order.is_le(),
        _ => order.is_ge(),
    })
}

fn in_class(class: &str, found: &Value) -> bool {
    let Some(digit) = class
        .strip_suffix("xx")
        .filter(|digit| ["1", "2", "3", "4", "5"].contains(digit))
    else {
        return false;
    };
    let text = match found {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return false,
    };
    text.len() == 3 && text.starts_with(digit) && text.bytes().all(|byte| byte.is_ascii_digit())
}
