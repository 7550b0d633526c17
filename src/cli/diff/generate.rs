//! Requests generated from the conditions of two policies, so that every rule of either is reached.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use crate::policy::{FallbackRule, RoutingPolicy};

/// The most requests that are generated.
const MOST: usize = 2_000;

/// An empty request, and for every rule the requests that satisfy it: without a failure, after a failure, and with
/// every number of attempts that a rule mentions already used.
pub(super) fn contexts(old: &RoutingPolicy, new: &RoutingPolicy) -> Vec<Value> {
    let providers: BTreeSet<&str> = [old, new]
        .iter()
        .flat_map(|policy| policy.providers.iter().map(|provider| provider.id.as_str()))
        .collect();
    // Which provider failed matters only to rules that name it, and those put it into the context themselves.
    let failed: BTreeSet<&str> = providers
        .first()
        .into_iter()
        .chain(providers.last())
        .copied()
        .collect();
    let rules = || [old, new].into_iter().flat_map(|policy| policy.fallbacks.iter());
    let mut spent: BTreeSet<i64> = rules()
        .flat_map(|rule| [rule.retry.saturating_sub(1), rule.retry])
        .filter(|attempts| *attempts > 0)
        .collect();
    spent.insert(0);
    let mut contexts = vec![json!({})];
    for rule in rules() {
        for fitting in fitting(rule) {
            contexts.push(Value::Object(fitting.clone()));
            for provider in &failed {
                for attempts in &spent {
                    let mut context = fitting.clone();
                    let mut default = |key: &str, value: Value| {
                        context.entry(key).or_insert(value);
                    };
                    default("current_provider", (*provider).into());
                    default("status", "timeout".into());
                    default("retry_attempts", (*attempts).into());
                    contexts.push(Value::Object(context));
                }
            }
        }
    }
    let mut seen = BTreeSet::new();
    contexts.retain(|context| seen.insert(context.to_string()));
    contexts.truncate(MOST);
    contexts
}

/// Contexts that satisfy a rule's `when`: one for every value in its lists.
fn fitting(rule: &FallbackRule) -> Vec<Map<String, Value>> {
    let mut contexts = vec![Map::new()];
    for (key, wanted) in &rule.when.to_json() {
        if let Some((path, value)) = operand(key, wanted) {
            for context in &mut contexts {
                insert(context, path, value.clone());
            }
            continue;
        }
        let values = match wanted {
            Value::Array(values) => values.as_slice(),
            value => std::slice::from_ref(value),
        };
        let with = |value: &Value| {
            let value = value.clone();
            contexts.iter().cloned().map(move |mut context| {
                context.insert(key.clone(), value.clone());
                context
            })
        };
        contexts = values.iter().flat_map(with).take(MOST).collect();
    }
    contexts
}

/// The path that an operator reads, and a value there that satisfies it.
fn operand<'w>(operator: &str, operands: &'w Value) -> Option<(&'w str, Value)> {
    let [left, right] = operands.as_array()?.as_slice() else {
        return None;
    };
    let variable = |value: &'w Value| value.get("var").and_then(Value::as_str);
    let (path, literal, operator) = match (variable(left), variable(right)) {
        (Some(path), None) => (path, right, operator),
        (None, Some(path)) => {
            let mirrored = match operator {
                ">" => "<",
                "<" => ">",
                same => same,
            };
            (path, left, mirrored)
        }
        _ => return None,
    };
    let beside = |step: f64| match literal {
        Value::Number(number) if number.is_i64() => {
            json!(number.as_i64().unwrap_or(0).saturating_add(step as i64))
        }
        Value::Number(number) => json!(number.as_f64().unwrap_or(0.0) + step),
        Value::String(text) if step > 0.0 => json!(format!("{text}~")),
        Value::String(_) => json!(""),
        _ => Value::Null,
    };
    let value = match operator {
        "==" | ">=" | "<=" => literal.clone(),
        ">" | "!=" => beside(1.0),
        "<" => beside(-1.0),
        "in" => literal.get(0)?.clone(),
        _ => return None,
    };
    Some((path.strip_prefix("context.").unwrap_or(path), value))
}

/// Puts a value at a dotted path.
fn insert(context: &mut Map<String, Value>, path: &str, value: Value) {
    match path.split_once('.') {
        None => {
            context.insert(path.to_owned(), value);
        }
        Some((first, rest)) => {
            let inner = context.entry(first).or_insert_with(|| json!({}));
            if !inner.is_object() {
                *inner = json!({});
            }
            if let Value::Object(inner) = inner {
                insert(inner, rest, value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{ConditionRules, Facts, read_object};

    #[test]
    fn every_rule_is_true_for_the_contexts_generated_for_it() {
        let (policy, problems) = read_object(
            json!({
                "weights": {"a": 0.5, "b": 0.5},
                "fallbacks": [
                    {"when": {"status": ["timeout", "5xx"], "tier": "gold"}, "retry": 3, "to": "c"},
                    {"when": {">": [{"var": "context.usage.tokens"}, 1000]}, "to": "c"},
                    {"when": {"<": [{"var": "usage.share"}, 0.5]}, "to": "c"},
                    {"when": {">": [5, {"var": "n"}]}, "to": "c"},
                    {"when": {"in": [{"var": "region"}, ["eu", "us"]]}, "to": "c"},
                    {"when": {"!=": [{"var": "region"}, "eu"]}, "to": "c"},
                    {"when": {">=": [{"var": "name"}, "m"]}, "to": "c"},
                    {"when": {}, "retry": 0, "to": "c"},
                ],
            })
            .as_object()
            .unwrap(),
        );
        assert!(
            problems.iter().all(|problem| !problem.path.contains("when")),
            "{problems:?}"
        );
        for rule in &policy.fallbacks {
            for context in fitting(rule) {
                let holds = rule.when.holds(Facts::of(&context), ConditionRules::default());
                assert!(holds, "{:?} {context:?}", rule.when.to_json());
            }
        }
        let contexts = contexts(&policy, &policy);
        for wanted in [
            json!({}),
            json!({"status": "5xx", "tier": "gold"}),
            json!({"status": "timeout", "tier": "gold", "current_provider": "b", "retry_attempts": 2}),
            json!({"status": "timeout", "tier": "gold", "current_provider": "a", "retry_attempts": 3}),
            json!({"usage": {"tokens": 1001}}),
        ] {
            assert!(contexts.contains(&wanted), "{wanted}");
        }
        assert!(contexts.len() < MOST);
    }
}
