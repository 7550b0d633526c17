//! Fallback rules: the first true one decides.

use serde_json::Value;

use super::{Context, Jitter, backoff::backoff_ms};
use crate::policy::{ConditionRules, Facts, FallbackRule, ProviderId, RoutingPolicy, exact};

/// The result of a rule.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict<'a> {
    /// Try the failed provider once more.
    Retry {
        provider: ProviderId,
        attempt: u64,
        backoff_ms: u64,
    },
    /// Use another provider.
    Target {
        provider: &'a ProviderId,
        attempts_used: u64,
    },
    /// The rule is true and names no provider.
    Nothing,
}

/// The inputs of the rules.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) context: &'a Context,
    /// Replaces the context's status, if the decision determined one.
    pub(super) status: Option<&'a Value>,
    /// Whether the failed provider may be tried again.
    pub(super) may_retry: bool,
    pub(super) conditions: ConditionRules,
}

/// The true rules, in order, with their results. The first applies; the others are needed if its target is
/// unavailable.
pub(super) fn matching<'a>(
    policy: &'a RoutingPolicy,
    asked: Asked<'a>,
    jitter: &'a mut Jitter,
) -> impl Iterator<Item = (usize, &'a FallbackRule, Verdict<'a>)> {
    let facts = Facts {
        context: asked.context,
        status: asked.status,
    };
    policy
        .fallbacks
        .iter()
        .enumerate()
        .filter(move |(_, rule)| rule.when.holds(facts, asked.conditions))
        .map(move |(index, rule)| (index, rule, verdict(index, rule, asked, jitter)))
}

fn verdict<'a>(index: usize, rule: &'a FallbackRule, asked: Asked<'_>, jitter: &mut Jitter) -> Verdict<'a> {
    let attempts = attempts(asked.context, &rule.id, index);
    let budget = u64::try_from(rule.retry).unwrap_or(0);
    let current = asked
        .context
        .get("current_provider")
        .and_then(Value::as_str)
        .filter(|name| !name.is_empty());
    match (current, &rule.to) {
        (Some(current), _) if asked.may_retry && attempts < budget => {
            let attempt = attempts + 1;
            let backoff_ms = backoff_ms(rule.backoff.as_ref(), attempt, jitter);
            Verdict::Retry {
                provider: ProviderId::new(current),
                attempt,
                backoff_ms,
            }
        }
        (_, Some(to)) => Verdict::Target {
            provider: to,
            attempts_used: attempts,
        },
        (_, None) => Verdict::Nothing,
    }
}

/// Attempts already used for a rule, in every form that callers use: a flat key with the rule's id or its
/// index, a map with either, one plain number.
fn attempts(context: &Context, rule_id: &str, index: usize) -> u64 {
    let index = index.to_string();
    let flat = |name: &str| context.get(&format!("retry_attempts_{name}"));
    let map = context.get("retry_attempts");
    let in_map = |name: &str| map.and_then(|map| map.get(name));
    flat(rule_id)
        .or_else(|| flat(&index))
        .or_else(|| in_map(rule_id))
        .or_else(|| in_map(&index))
        .or(map)
        .and_then(count)
        .unwrap_or(0)
}

/// A count, as a number or as text. Floats count too, so that the retries of a caller with such numbers end as well.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(whole)),
        Value::Object(_) => exact::as_f64(value).map(whole),
        Value::String(text) => text.parse().ok().or_else(|| {
            text.parse()
                .ok()
                .filter(|number: &f64| !number.is_nan())
                .map(whole)
        }),
        _ => None,
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "saturates: below zero is none, beyond all counting is as many as can be"
)]
const fn whole(number: f64) -> u64 {
    number as u64
}
