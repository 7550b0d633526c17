//! Cases about the table of sessions itself.

use beamline_sidecar::{
    decide::{
        Timestamp,
        memory::{Session, StickyTable},
    },
    policy::{ProviderId, TenantId},
};
use serde_json::{Map, Value, json};

use super::Case;

fn tenant(name: &str) -> Result<TenantId, String> {
    TenantId::parse(name).map_err(|error| format!("the tenant {name:?}: {error}"))
}

const fn at(seconds: i64) -> Timestamp {
    Timestamp::from_unix_ms(seconds.unsigned_abs() * 1_000)
}

pub(super) fn run(case: &mut Case) -> Result<(), String> {
    let table = StickyTable::new(1_000);
    match case.take("store").ok_or("given.store")? {
        Value::String(text) => one_session(case, &table, &text),
        Value::Array(entries) => several(case, &table, &entries),
        other => Err(format!("given.store = {other}")),
    }
}

/// `set at t=100 with ttl 3600`, `set at t=100 with ttl 10, set again at t=105`; then `lookups_at`.
fn one_session(case: &mut Case, table: &StickyTable, text: &str) -> Result<(), String> {
    let not_understood = || format!("the store {text:?}");
    let (name, value, provider) = (tenant("t")?, json!("s"), ProviderId::new("a"));
    let session = Session {
        tenant: &name,
        value: &value,
    };
    let mut ttl = 3_600;
    for part in text.split([',', ';']).flat_map(|part| part.split(" then ")) {
        let words: Vec<&str> = part.split_whitespace().collect();
        let seconds = |word: &str| {
            word.trim_start_matches("t=")
                .parse::<i64>()
                .map_err(|_| not_understood())
        };
        let (when, given) = match words[..] {
            ["set", "at", when, "with", "ttl", given]
            | ["set", "again", "at", when, "with", "ttl", given]
            | ["renewed", "at", when, "with", "ttl", given] => {
                (seconds(when)?, seconds(given.trim_end_matches('s'))?)
            }
            ["set", "at", when]
            | ["set", "again", "at", when]
            | ["renewed", "at", when]
            | ["hit", "at", when] => (seconds(when)?, ttl),
            _ => return Err(not_understood()),
        };
        ttl = given;
        table.store(session, &provider, ttl, at(when));
    }
    let reading = match case.take("policy_ttl").or_else(|| case.take("reading_ttl")) {
        Some(reading) => reading.as_i64().ok_or("the reading policy's ttl")?,
        None => ttl,
    };
    let lookups = case.take("lookups_at").ok_or("given.lookups_at")?;
    let mut found = Vec::new();
    for when in lookups.as_array().ok_or("given.lookups_at")? {
        let when = when.as_i64().ok_or("given.lookups_at")?;
        let hit = table.lookup(session, reading, at(when)).is_some();
        found.push(json!(if hit { "hit" } else { "miss" }));
    }
    case.expect.check_each("result", &found);
    Ok(())
}

/// `[tenant, session, provider]` each; then what is found, after what was cleared.
fn several(case: &mut Case, table: &StickyTable, entries: &[Value]) -> Result<(), String> {
    let mut found = Map::new();
    for entry in entries {
        let words = entry.as_array().ok_or("given.store")?;
        let (name, value, provider, ttl) = match &words[..] {
            [name, value, provider] => (name, value, provider, 3_600),
            [name, value, provider, ttl] => (name, value, provider, ttl.as_i64().ok_or("given.store")?),
            _ => return Err(format!("given.store: {entry}")),
        };
        let name = tenant(name.as_str().ok_or("given.store")?)?;
        let provider = ProviderId::new(provider.as_str().ok_or("given.store")?);
        let session = Session { tenant: &name, value };
        table.store(session, &provider, ttl, at(100));
    }
    let mut cleared = Vec::new();
    if let Some(names) = case.take("clear") {
        for name in super::documents::each(&names) {
            let (tenant, value) = split(name.as_str().ok_or("given.clear")?)?;
            let session = Session {
                tenant: &tenant,
                value: &value,
            };
            table.clear(session);
            cleared.push(json!("ok"));
        }
        case.expect.check_each("cleared", &cleared);
    }
    if let Some(when) = case.take("clear_expired_at") {
        let gone = table.clear_expired(at(when.as_i64().ok_or("given.clear_expired_at")?));
        for key in ["cleared", "deleted", "result"] {
            case.expect.check(key, &json!(gone));
        }
    }
    let names = case.expect.keys_of("get");
    for name in names {
        let (tenant, value) = split(&name)?;
        let session = Session {
            tenant: &tenant,
            value: &value,
        };
        let provider = table.lookup(session, 3_600, at(100));
        found.insert(
            name,
            provider.map_or_else(|| "not_found".into(), |provider| json!(provider)),
        );
    }
    case.expect.check("get", &Value::Object(found));
    case.expect.check("size", &json!(table.len()));
    Ok(())
}

fn split(name: &str) -> Result<(TenantId, Value), String> {
    let (name, value) = name
        .split_once('/')
        .ok_or_else(|| format!("the session {name:?}"))?;
    Ok((tenant(name)?, value.into()))
}
