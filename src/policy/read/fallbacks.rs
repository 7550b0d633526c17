//! `fallbacks`, and the older `fallback`.

use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::{notes::Notes, weights::check_name};
use crate::policy::{Backoff, Condition, FallbackRule, ProviderId, Strategy, exact, json_path::At};

/// Most rules that a policy may have.
const MOST_RULES: usize = 1_000;

/// The rules, and the provider of last resort. A `fallback` without `fallbacks` is both.
pub(super) fn fallbacks(
    document: &Map<String, Value>,
    notes: &mut Notes,
) -> (Box<[FallbackRule]>, Option<ProviderId>) {
    let root = At::Root;
    let rules = document.get("fallbacks");
    let (last_resort, conditions) = legacy(document.get("fallback"), At::Key(&root, "fallback"), notes);
    if rules.is_none() {
        // Without a provider the rule still asks for its retry, and then the next is asked.
        let converted = conditions.map(|conditions| {
            let when = json!({"status": conditions});
            let when = when.as_object().map_or_else(Condition::never, Condition::parse);
            number(0, when, 1, None, last_resort.clone())
        });
        return (converted.into_iter().collect(), last_resort);
    }
    let at = At::Key(&root, "fallbacks");
    if document.contains_key("fallback") {
        let message =
            "`fallbacks` is given, so `fallback` is only the last resort and its conditions are ignored";
        notes.warn(At::Key(&root, "fallback"), message, "nothing if that is meant");
    }
    let rules = notes.array(rules, at, "fallbacks").unwrap_or_default();
    let rules = notes
        .limited(rules.iter(), MOST_RULES, at, "rules")
        .enumerate()
        .map(|(index, entry)| rule(index, entry, At::Index(&at, index), notes));
    (rules.collect(), last_resort)
}

/// The provider, and the conditions of the rule; no conditions where there is no rule.
fn legacy(
    fallback: Option<&Value>,
    at: At<'_>,
    notes: &mut Notes,
) -> (Option<ProviderId>, Option<Vec<Value>>) {
    let always = || vec!["all_providers_failed".into()];
    match fallback {
        None => (None, None),
        Some(Value::String(provider)) => (check_name(provider, at, notes), Some(always())),
        Some(Value::Object(object)) => {
            notes.unknown_keys(object, &at, &["provider", "conditions"]);
            let at_conditions = At::Key(&at, "conditions");
            let conditions = notes.array(object.get("conditions"), at_conditions, "fallback.conditions");
            let conditions = conditions
                .filter(|list| !list.is_empty())
                .map_or_else(always, <[Value]>::to_vec);
            let at_provider = At::Key(&at, "provider");
            let provider = match object.get("provider") {
                Some(Value::String(provider)) => check_name(provider, at_provider, notes),
                Some(_) => {
                    notes.error(
                        at_provider,
                        "fallback.provider must be a string",
                        "name a provider",
                    );
                    None
                }
                None => {
                    notes.warn(
                        at,
                        "fallback names no provider",
                        "add `provider`: without one the failed provider is only retried",
                    );
                    None
                }
            };
            (provider, Some(conditions))
        }
        Some(_) => {
            let remedy = "write {\"provider\": …, \"conditions\": […]}, or \"provider\"";
            notes.error(at, "fallback must be an object or string", remedy);
            (None, None)
        }
    }
}

fn rule(index: usize, entry: &Value, at: At<'_>, notes: &mut Notes) -> FallbackRule {
    let Some(rule) = entry.as_object() else {
        notes.error(
            at,
            "the rule is not an object",
            "write {\"when\": {…}, \"retry\": 1, \"to\": …}: as it stands it is passed over",
        );
        return number(index, Condition::never(), 1, None, None);
    };
    notes.unknown_keys(rule, &at, &["when", "retry", "backoff", "to"]);
    let when = match rule.get("when") {
        None => Condition::parse(&Map::new()),
        Some(Value::Object(when)) => {
            check_when(when, At::Key(&at, "when"), notes);
            Condition::parse(when)
        }
        Some(_) => {
            let remedy = "write {\"status\": [\"timeout\"]}: as it stands the rule never applies";
            notes.error(At::Key(&at, "when"), "when must be an object", remedy);
            Condition::never()
        }
    };
    let retry = match rule.get("retry") {
        None => 1,
        // A stored value is kept: below zero acts as zero, and fifty means fifty.
        Some(value) => {
            notes.whole(rule, &at, "retry", 0..=10);
            value
                .as_i64()
                .or_else(|| value.as_u64().map(|_large| i64::MAX))
                .unwrap_or(1)
        }
    };
    let at_to = At::Key(&at, "to");
    let to = match rule.get("to") {
        Some(Value::String(to)) => check_name(to, at_to, notes),
        Some(_) => {
            notes.error(at_to, "to must be a string", "name a provider");
            None
        }
        None => {
            notes.warn(
                at,
                "the rule has no `to`",
                "name a provider: without one the next rule is asked",
            );
            None
        }
    };
    let backoff = notes.object(rule.get("backoff"), At::Key(&at, "backoff"), "backoff");
    let backoff = backoff.map(|object| self::backoff(object, At::Key(&at, "backoff"), notes));
    number(index, when, retry, backoff, to)
}

/// Warns about clauses that can never be true.
pub(super) fn check_when(when: &Map<String, Value>, at: At<'_>, notes: &mut Notes) {
    let values = when.get("status").map(|value| match value {
        Value::Array(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    });
    if let Some(other) = values.into_iter().flatten().find(|value| !value.is_string()) {
        notes.warn(
            At::Key(&at, "status"),
            format_args!("a status is a text, and {other} is none: it never matches one"),
            "write the status in quotes, such as \"503\"",
        );
    }
    for (key, value) in when {
        if value.as_array().is_some_and(Vec::is_empty) {
            notes.warn(
                At::Key(&at, key),
                "an empty list is never true",
                "list the values, or remove the key",
            );
        }
    }
}

fn backoff(object: &Map<String, Value>, at: At<'_>, notes: &mut Notes) -> Backoff {
    notes.unknown_keys(object, &at, &["strategy", "base_ms", "max_ms", "jitter"]);
    let strategy = match object.get("strategy").map(Value::as_str) {
        None | Some(Some("exponential")) => Strategy::Exponential,
        Some(Some("linear")) => Strategy::Linear,
        Some(Some("fixed")) => Strategy::Fixed,
        Some(_) => {
            let remedy = "use \"exponential\", \"linear\" or \"fixed\": it counts as exponential";
            notes.error(At::Key(&at, "strategy"), "there is no such strategy", remedy);
            Strategy::Exponential
        }
    };
    let mut whole = |key, default, range| {
        notes
            .whole_u32(object, &at, key, range)
            .map_or(default, u64::from)
    };
    let (base_ms, max_ms) = (
        whole("base_ms", 100, 1..=10_000),
        whole("max_ms", 5_000, 1..=60_000),
    );
    let jitter = notes
        .boolean(object.get("jitter"), At::Key(&at, "jitter"), "jitter")
        .unwrap_or(true);
    Backoff {
        strategy,
        base_ms,
        max_ms,
        jitter,
    }
}

/// Gives a rule its id: its index, and a digest of its content.
fn number(
    index: usize,
    when: Condition,
    retry: i64,
    backoff: Option<Backoff>,
    to: Option<ProviderId>,
) -> FallbackRule {
    let mut rule = FallbackRule {
        id: Box::default(),
        when,
        retry,
        backoff,
        to,
    };
    // The keys of a `Map` are sorted, and there is no white space: the canonical form.
    let digest = Sha256::digest(exact::written(Value::Object(rule.to_json()).to_string()));
    rule.id = format!("{index}-{}", hex::encode(&digest[..4])).into();
    rule
}
