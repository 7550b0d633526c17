//! Fallback rules: the first that is true decides.

use serde_json::Value;

use super::{Context, Jitter, backoff::backoff_ms};
use crate::policy::{ConditionRules, Facts, FallbackRule, ProviderId, RoutingPolicy};

/// What a rule says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Verdict<'a> {
    /// Try the provider that failed once more.
    Retry {
        provider: ProviderId,
        attempt: u64,
        backoff_ms: u64,
    },
    /// Go to another one.
    Target {
        provider: &'a ProviderId,
        attempts_used: u64,
    },
    /// The rule is true and has nothing to offer.
    Nothing,
}

/// The circumstances rules are asked in.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asked<'a> {
    pub(super) context: &'a Context,
    /// In place of the context's status, where the decision found one.
    pub(super) status: Option<&'a Value>,
    /// Whether the provider that failed may be tried again.
    pub(super) may_retry: bool,
    pub(super) conditions: ConditionRules,
}

/// The rules that are true, in order, with what each says. Whoever asks takes the first; the others are for when its
/// target turns out to be unavailable.
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

/// Attempts already spent on a rule, in every spelling that callers have used: a flat key with the rule's id or its
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

/// A count, as a number or as text. A caller whose numbers are floats must come to the end of his retries as well.
fn count(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64().or_else(|| number.as_f64().map(whole)),
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
