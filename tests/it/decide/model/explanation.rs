//! The steps and the context of an explanation (3).

use serde_json::{Map, Value, json};

use super::{
    engine::{Decided, How, Session},
    policy::Policy,
};

/// The levels by their names.
pub(super) const LEVELS: [&str; 3] = ["minimal", "detailed", "verbose"];

pub(super) fn reason(how: &How) -> (&'static str, u64) {
    match how {
        How::Sticky => ("sticky", 100),
        How::Weighted => ("weighted", 50),
        How::Retry { .. } => ("retry", 50),
        How::Fallback { .. } | How::LastResort => ("fallback", 25),
        How::Breaker { .. } => ("circuit_breaker_fallback", 20),
    }
}

/// The steps (3.3). `None`: the contract has no words for this one.
pub(super) fn steps(
    policy: &Policy,
    context: &Map<String, Value>,
    decided: &Decided,
    ids: &[String],
    backoff_ms: u64,
    level: &str,
) -> Vec<Option<String>> {
    let (minimal, verbose) = (level == "minimal", level == "verbose");
    let (reason, _) = reason(&decided.how);
    let mut steps = Vec::new();
    if let Some(sticky) = &policy.sticky {
        match decided.session {
            Session::NotAsked => {}
            Session::Hit if minimal => steps.push(Some("1. Sticky session: found".to_owned())),
            _ if minimal => {}
            Session::Hit => {
                let key = &sticky.session_key;
                let value = match context.get(key) {
                    Some(Value::String(text)) => text.clone(),
                    other => other.map(Value::to_string).unwrap_or_default(),
                };
                let ttl = sticky
                    .ttl
                    .clone()
                    .unwrap_or_else(|| format!("{}s", sticky.ttl_seconds));
                let more = if verbose {
                    format!(" (TTL: {ttl})")
                } else {
                    String::new()
                };
                let found = "1. Checked sticky session: found existing provider for key";
                steps.push(Some(format!("{found} {key} = {value}{more}")));
            }
            Session::Miss => steps.push(Some(
                "1. Checked sticky session: no existing session found".to_owned(),
            )),
            Session::Excluded => steps.push(None),
        }
    }
    let (count, total) = (policy.weights.len(), policy.total());
    let names: Vec<String> = policy
        .weights
        .iter()
        .map(|(name, weight)| format!("{name}: {weight:.2}"))
        .collect();
    let more = if verbose {
        format!(" ({})", names.join(", "))
    } else {
        String::new()
    };
    match decided.how {
        _ if count == 0 => {}
        How::Weighted if minimal => steps.push(Some(format!("2. Weighted: {count} providers"))),
        How::Weighted => steps.push(Some(format!(
            "2. Applied weighted distribution: {count} providers, total weight: {total:.2}{more}"
        ))),
        _ if minimal => {}
        _ => steps.push(Some(format!(
            "2. Skipped weighted distribution (provider selected via {reason})"
        ))),
    }
    let step = match &decided.how {
        How::Fallback { .. } if minimal => "3. Fallback after retry".to_owned(),
        How::Fallback { rule, used, max } => {
            let id = if verbose {
                format!(" (rule: {})", ids[*rule])
            } else {
                String::new()
            };
            format!("3. Applied fallback rule after {used}/{max} retry attempts exhausted{id}")
        }
        How::LastResort if minimal => "3. Fallback applied".to_owned(),
        How::LastResort => format!(
            "3. Applied fallback rule: {} fallback rules evaluated",
            policy.rules.len()
        ),
        How::Retry { attempt, max, .. } if minimal => format!("3. Retry {attempt}/{max}"),
        How::Retry {
            attempt,
            max,
            strategy,
            ..
        } => {
            let more = if verbose {
                format!(" (strategy: {strategy})")
            } else {
                String::new()
            };
            format!("3. Retry attempt {attempt}/{max} with backoff {backoff_ms}ms{more}")
        }
        How::Breaker { .. } if minimal => "3. Circuit breaker fallback".to_owned(),
        How::Breaker { original } => format!("3. Circuit breaker open for {original}: fallback applied"),
        How::Sticky | How::Weighted if minimal || policy.rules.is_empty() => return steps,
        How::Sticky | How::Weighted => format!("3. Skipped fallbacks (provider selected via {reason})"),
    };
    steps.push(Some(step));
    steps
}

/// Retry and fallback as the metadata and the explanation have them (2.5, 3.1).
pub(super) fn details(how: &How, ids: &[String], backoff_ms: u64) -> Map<String, Value> {
    let details = match how {
        How::Retry {
            rule, attempt, max, ..
        } => json!({
            "fallback_rule_id": ids[*rule], "rule_index": rule, "retry_attempt": attempt, "retry_max": max,
            "backoff_ms": backoff_ms, "backoff_applied": true,
        }),
        How::Fallback { rule, used, max } => json!({
            "fallback_rule_id": ids[*rule], "rule_index": rule, "retry_attempts_used": used, "retry_max": max,
            "fallback_applied": true,
        }),
        How::LastResort => json!({"fallback_applied": true}),
        How::Breaker { original } => json!({"fallback_applied": true, "original_provider": original}),
        How::Sticky | How::Weighted => json!({}),
    };
    details.as_object().cloned().unwrap_or_default()
}

/// (3.4)
pub(super) fn context(
    policy: &Policy,
    context: &Map<String, Value>,
    decided: &Decided,
    provider: &str,
    details: Map<String, Value>,
    level: &str,
) -> Map<String, Value> {
    let known = |key: &str| context.get(key).map(|value| (key.to_owned(), value.clone()));
    let mut shown = match level {
        "minimal" => return known("tenant_id").into_iter().collect(),
        "detailed" => known("tenant_id").into_iter().chain(known("trace_id")).collect(),
        _ => context.clone(),
    };
    shown.extend(details);
    if level == "verbose" {
        shown.insert("weights".to_owned(), json!(policy.weights));
        if let Some(weight) = policy.weights.get(provider) {
            shown.insert("provider_weight".to_owned(), json!(weight));
        }
        if let How::Retry { strategy, .. } = &decided.how {
            shown.insert("backoff_strategy".to_owned(), json!(strategy));
        }
    }
    shown
}
