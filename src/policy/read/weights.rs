//! `providers` and the older `weights`: fractions by name.

use std::collections::BTreeMap;

use serde_json::{Map, Number, Value};

use super::{notes::Notes, settings};
use crate::policy::{InvalidId, Provider, ProviderId, json_path::At};

const KEYS: [&str; 7] = [
    "name",
    "weight",
    "priority",
    "timeout_ms",
    "health_check",
    "circuit_breaker",
    "rate_limit",
];

/// Most providers that a policy may have.
const MOST: usize = 10_000;

/// How far a sum may deviate from 1 and still count as 1.
const CLOSE: f64 = 1e-9;

/// The weighted set. A list of `providers` hides `weights`.
pub(super) fn providers(document: &Map<String, Value>, notes: &mut Notes) -> Box<[Provider]> {
    let root = At::Root;
    let at = At::Key(&root, "providers");
    let (providers, at) = match (document.get("providers"), document.get("weights")) {
        (Some(Value::Array(list)), hidden) => {
            if hidden.is_some() {
                let at = At::Key(&root, "weights");
                notes.warn(
                    at,
                    "`providers` is given, so `weights` is ignored",
                    "keep one of the two",
                );
            }
            (from_list(list, at, notes), at)
        }
        (other, weights) => {
            if other.is_some() {
                notes.error(
                    at,
                    "providers must be an array",
                    "list objects of a name and a weight",
                );
            }
            match weights {
                Some(weights) => {
                    let at = At::Key(&root, "weights");
                    (from_map(weights, at, notes), at)
                }
                None => (Vec::new(), At::Root),
            }
        }
    };
    judge_sum(&providers, at, notes);
    providers.into()
}

fn judge_sum(providers: &[Provider], at: At<'_>, notes: &mut Notes) {
    let total: f64 = providers.iter().map(|provider| provider.weight).sum();
    if providers.is_empty() {
        let remedy = "add `providers`, for example [{\"name\":\"openai\",\"weight\":100}]";
        notes.error(at, "weights cannot be empty", remedy);
    } else if total <= 0.0 {
        notes.warn(
            at,
            format_args!("Total weight is {total}: no provider is ever drawn"),
            "give one provider a weight, unless the fallbacks alone are to decide",
        );
    } else if (total - 1.0).abs() > CLOSE {
        notes.warn(
            at,
            format_args!(
                "Provider weights do not sum to 100 (the sum is {:.2})",
                total * 100.0
            ),
            "nothing if that is meant: providers are drawn in proportion to their weights",
        );
    }
}

fn from_list(list: &[Value], parent: At<'_>, notes: &mut Notes) -> Vec<Provider> {
    let mut providers = BTreeMap::new();
    for (index, entry) in notes.limited(list.iter(), MOST, parent, "providers").enumerate() {
        let at = At::Index(&parent, index);
        let Some(provider) = from_entry(entry, at, notes) else {
            continue;
        };
        if providers.insert(provider.id.clone(), provider).is_some() {
            notes.warn(
                At::Key(&at, "name"),
                "the provider is listed twice; the last entry counts",
                "keep one",
            );
        }
    }
    providers.into_values().collect()
}

fn from_entry(entry: &Value, at: At<'_>, notes: &mut Notes) -> Option<Provider> {
    let Some(object) = entry.as_object() else {
        let remedy = "write {\"name\": …, \"weight\": …}: the entry is skipped";
        notes.warn(at, "the entry is not an object of a name and a weight", remedy);
        return None;
    };
    notes.unknown_keys(object, &at, &KEYS);
    for key in ["circuit_breaker", "rate_limit"]
        .into_iter()
        .filter(|key| object.contains_key(*key))
    {
        let remedy = "set it for the whole policy: it is ignored here";
        notes.warn(
            At::Key(&at, key),
            "the language has no such setting for one provider",
            remedy,
        );
    }
    let name = match object.get("name") {
        Some(Value::String(name)) => check_name(name, At::Key(&at, "name"), notes)?,
        Some(_) => {
            notes.warn(
                At::Key(&at, "name"),
                "name must be a string",
                "name the provider: the entry is skipped",
            );
            return None;
        }
        None => {
            notes.warn(
                at,
                "the entry has no name",
                "name the provider: the entry is skipped",
            );
            return None;
        }
    };
    let at_weight = At::Key(&at, "weight");
    let weight = match object.get("weight") {
        Some(Value::Number(number)) => scaled(number),
        Some(_) => {
            notes.warn(
                at_weight,
                "weight must be a number",
                "write 0 to 100: the entry is skipped",
            );
            return None;
        }
        None => {
            notes.warn(
                at,
                "the entry has no weight",
                "write 0 to 100: the entry is skipped",
            );
            return None;
        }
    };
    check_weight(weight, at_weight, notes);
    Some(Provider {
        id: name,
        weight,
        timeout_ms: settings::timeout_ms(object, &at, notes),
        health_check: settings::health_check(object, &at, notes),
    })
}

/// Whole numbers are percentages, and so is a float above one; 1.0 and below is a fraction. 50 and 50.0 are both a
/// half.
fn scaled(number: &Number) -> f64 {
    let value = number.as_f64().unwrap_or(0.0);
    if !number.is_f64() || value > 1.0 {
        value / 100.0
    } else {
        value + 0.0
    }
}

fn check_weight(weight: f64, at: At<'_>, notes: &mut Notes) {
    if !(0.0..=1.0).contains(&weight) {
        let remedy = "write 0 to 100, or a fraction from 0.0 to 1.0";
        notes.error(at, "Weight must be a number between 0.0 and 1.0", remedy);
    }
}

/// A name as it may be stored; an entry without one is no provider.
pub(super) fn check_name(name: &str, at: At<'_>, notes: &mut Notes) -> Option<ProviderId> {
    let remedy = "use 1 to 255 characters of A-Z a-z 0-9 _ . : / -";
    match ProviderId::check(name) {
        Ok(()) => {
            let schema_class = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
            if !name.bytes().all(schema_class) {
                let message = "the platform's schema knows provider names of a-z 0-9 _ only";
                notes.warn(
                    at,
                    message,
                    "nothing if every part of the platform takes this name",
                );
            }
        }
        Err(InvalidId::Empty) => {
            notes.error(at, "the provider's name is empty", remedy);
            return None;
        }
        Err(InvalidId::TooLong) => {
            notes.error(at, "the provider's name is longer than 255 characters", remedy)
        }
        Err(_) => {
            let message = "the provider's name has a character outside A-Z a-z 0-9 _ . : / -";
            notes.error(at, message, remedy);
        }
    }
    Some(ProviderId::new(name))
}

fn from_map(weights: &Value, at: At<'_>, notes: &mut Notes) -> Vec<Provider> {
    let Some(weights) = weights.as_object() else {
        notes.error(
            at,
            "weights must be an object",
            "write {\"openai\": 0.7, \"anthropic\": 0.3}",
        );
        return Vec::new();
    };
    let numbers = || weights.values().filter_map(Value::as_f64);
    let largest = numbers().fold(0.0, f64::max);
    let fractional = numbers().any(|value| value.fract() != 0.0);
    // A map with a fraction and a sum between one and two holds wrong fractions, not percentages.
    let percent = largest > 1.0 && !(largest < 2.0 && fractional);
    let mut providers = Vec::with_capacity(weights.len().min(MOST));
    for (name, value) in notes.limited(weights.iter(), MOST, at, "providers") {
        let at = At::Key(&at, name);
        let Some(value) = value.as_f64() else {
            let remedy = "write a number from 0.0 to 1.0, or 0 to 100 throughout";
            notes.error(at, "Weight must be a number between 0.0 and 1.0", remedy);
            continue;
        };
        let weight = if percent { value / 100.0 } else { value + 0.0 };
        check_weight(weight, at, notes);
        if let Some(id) = check_name(name, at, notes) {
            providers.push(Provider {
                id,
                weight,
                timeout_ms: None,
                health_check: None,
            });
        }
    }
    providers.sort_by(|a, b| a.id.cmp(&b.id));
    providers
}
