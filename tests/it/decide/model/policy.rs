//! A document in its normal form (1).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::breaker::Settings;

#[derive(Debug, Default)]
pub(super) struct Policy {
    pub(super) version: String,
    /// In the order of their names (2.4).
    pub(super) weights: BTreeMap<String, f64>,
    pub(super) rules: Vec<Rule>,
    pub(super) last_resort: Option<String>,
    pub(super) sticky: Option<Sticky>,
    pub(super) breaker: Option<Settings>,
    pub(super) health_check: bool,
    /// The burst.
    pub(super) rate_limit: Option<u64>,
    pub(super) pre: Vec<Item>,
    pub(super) validators: Vec<Item>,
    pub(super) post: Vec<Item>,
}

#[derive(Debug)]
pub(super) struct Rule {
    /// `None`: never true.
    pub(super) when: Option<Map<String, Value>>,
    pub(super) retry: i64,
    pub(super) backoff: Option<Backoff>,
    pub(super) to: Option<String>,
}

#[derive(Debug)]
pub(super) struct Backoff {
    pub(super) strategy: String,
    pub(super) base_ms: u64,
    pub(super) max_ms: u64,
    pub(super) jitter: bool,
}

#[derive(Debug)]
pub(super) struct Sticky {
    pub(super) session_key: String,
    pub(super) ttl_seconds: i64,
    pub(super) ttl: Option<String>,
}

/// An extension in a list; without an id it only counts.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) id: Option<String>,
    /// `None`: never true.
    pub(super) when: Option<Map<String, Value>>,
}

fn text(object: &Value, key: &str) -> Option<String> {
    object[key].as_str().map(str::to_owned)
}

impl Policy {
    pub(super) fn read(document: &Value) -> Self {
        Self {
            version: text(document, "version").unwrap_or_else(|| "1.0".to_owned()),
            weights: weights(document),
            rules: rules(document),
            last_resort: text(&document["fallback"], "provider").or_else(|| text(document, "fallback")),
            sticky: sticky(&document["sticky"]),
            breaker: Settings::read(&document["circuit_breaker"]),
            health_check: document["health_check"]["enabled"] == true,
            rate_limit: (document["rate_limit"]["enabled"] == true).then(|| {
                let burst = document["rate_limit"]["burst"].as_u64();
                burst.unwrap_or(50).clamp(1, 1_000_000)
            }),
            pre: items(&document["pre"]),
            validators: items(&document["validators"]),
            post: items(&document["post"]),
        }
    }

    pub(super) fn total(&self) -> f64 {
        self.weights.values().sum::<f64>() + 0.0
    }
}

/// (1.2, 1.3)
fn weights(document: &Value) -> BTreeMap<String, f64> {
    if let Some(list) = document["providers"].as_array() {
        let entry = |entry: &Value| {
            let weight = match &entry["weight"] {
                Value::Number(number) if number.is_f64() && number.as_f64()? <= 1.0 => number.as_f64()?,
                Value::Number(number) => number.as_f64()? / 100.0,
                _ => return None,
            };
            Some((text(entry, "name")?, weight))
        };
        return list.iter().filter_map(entry).collect();
    }
    let Some(map) = document["weights"].as_object() else {
        return BTreeMap::new();
    };
    let numbers = || map.values().filter_map(Value::as_f64);
    let most = numbers().fold(0.0, f64::max);
    let out_of_range = most < 2.0 && numbers().any(|n| n.fract() != 0.0);
    let scale = if most > 1.0 && !out_of_range { 100.0 } else { 1.0 };
    let scaled = |(name, value): (&String, &Value)| Some((name.clone(), value.as_f64()? / scale));
    map.iter().filter_map(scaled).collect()
}

/// (1.5, 1.6)
fn rules(document: &Value) -> Vec<Rule> {
    match (document.get("fallbacks"), document.get("fallback")) {
        (Some(Value::Array(rules)), _) => rules.iter().map(rule).collect(),
        (Some(_), _) => Vec::new(),
        (None, Some(fallback @ (Value::Object(_) | Value::String(_)))) => {
            let conditions = match &fallback["conditions"] {
                Value::Array(conditions) if !conditions.is_empty() => conditions.clone(),
                _ => vec!["all_providers_failed".into()],
            };
            let when = Map::from_iter([("status".to_owned(), Value::Array(conditions))]);
            let to = text(fallback, "provider").or_else(|| fallback.as_str().map(str::to_owned));
            vec![Rule {
                when: Some(when),
                retry: 1,
                backoff: None,
                to,
            }]
        }
        (None, _) => Vec::new(),
    }
}

/// Without a condition it is always true, and one that is no object never is (2.8).
fn when(of: &Value) -> Option<Map<String, Value>> {
    match of.get("when") {
        _ if !of.is_object() => None,
        None => Some(Map::new()),
        Some(when) => when.as_object().cloned(),
    }
}

fn rule(rule: &Value) -> Rule {
    let backoff = rule.get("backoff").filter(|backoff| backoff.is_object());
    Rule {
        when: when(rule),
        retry: rule["retry"].as_i64().unwrap_or(1),
        to: text(rule, "to"),
        backoff: backoff.map(|backoff| Backoff {
            strategy: text(backoff, "strategy").unwrap_or_else(|| "exponential".to_owned()),
            base_ms: backoff["base_ms"].as_u64().unwrap_or(100),
            max_ms: backoff["max_ms"].as_u64().unwrap_or(5_000),
            jitter: backoff["jitter"].as_bool().unwrap_or(true),
        }),
    }
}

/// (1.7)
fn sticky(sticky: &Value) -> Option<Sticky> {
    let seconds = |ttl: &str| {
        let (number, unit) = ttl.split_at_checked(ttl.len().checked_sub(1)?)?;
        let unit = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3_600,
            _ => return None,
        };
        let digits = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit());
        Some(number.parse::<i64>().ok().filter(|_| digits)? * unit)
    };
    let ttl_seconds = match &sticky["ttl"] {
        Value::Null => sticky["ttl_seconds"].as_i64().unwrap_or(3_600),
        ttl => ttl.as_str().and_then(seconds).unwrap_or(3_600),
    };
    (sticky["enabled"] == true).then(|| Sticky {
        session_key: text(sticky, "session_key").unwrap_or_else(|| "session_id".to_owned()),
        ttl_seconds,
        ttl: text(sticky, "ttl"),
    })
}

/// (1.8)
fn items(list: &Value) -> Vec<Item> {
    let item = |item: &Value| Item {
        id: text(item, "id"),
        when: when(item),
    };
    list.as_array().into_iter().flatten().map(item).collect()
}
