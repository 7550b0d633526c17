//! From a document to the valid policy: leniently, because a stored policy must not be lost to a mistake that was never
//! reported to its author; and with every mistake noted, because a new document is refused for its mistakes.
//!
//! All forms that the language has had, and their mixtures, are read here. An error among the problems means that a
//! write of this document is refused; a load accepts the document nevertheless, and uses the valid parts.

mod fallbacks;
mod fields;
mod notes;
mod pipeline;
mod settings;
#[cfg(test)]
mod tests;
mod weights;

use std::sync::{Mutex, PoisonError};

use serde_json::{Map, Value};

use self::{
    fields::{FIELDS, Fields},
    notes::Notes,
};
use super::{
    Deprecated, DetailLevel, Problem, RoutingPolicy, document::PolicyDocument, exact, json_path::At,
};

/// Documents that are longer are read one after the other. Others, which nearly all are, wait for none.
const LONG: usize = 128 << 10;

/// Lists whose entries have conditions.
const WITH_CONDITIONS: [&str; 5] = ["fallbacks", "pre", "validators", "scorers", "post"];

/// Reads a document whose JSON was checked. Other bytes give an empty policy and one error.
pub fn read(bytes: &[u8]) -> (RoutingPolicy, Vec<Problem>) {
    read_parsed(bytes, exact::from_slice(bytes))
}

/// As [`read`], without what is kept in a policy and never used for routing. What is read takes a bounded amount of memory,
/// whatever the document says; one that would take more gives an empty policy and one error.
pub fn read_for_routing(bytes: &[u8]) -> (RoutingPolicy, Vec<Problem>) {
    // However many come at the same time, the memory for one is enough.
    static LONG_ONES: Mutex<()> = Mutex::new(());
    let is_long = bytes.len() > LONG;
    let _one_at_a_time = is_long.then(|| LONG_ONES.lock().unwrap_or_else(PoisonError::into_inner));
    let fields = exact::from_slice::<Fields>(bytes).map(|fields| fields.0);
    let (mut policy, problems) = read_parsed(bytes, fields);
    policy.deprecated = None;
    (policy, problems)
}

fn read_parsed(
    bytes: &[u8],
    parsed: serde_json::Result<Map<String, Value>>,
) -> (RoutingPolicy, Vec<Problem>) {
    match parsed {
        Ok(document) if exact::may_hold(bytes) => read_exact(document),
        Ok(document) => read_object(&document),
        Err(error) => {
            let (policy, _) = read_object(&Map::new());
            let text = error.to_string();
            let problem = if text.contains(fields::TOO_LARGE) {
                let remedy = "shorten its rules, conditions and extensions' configurations";
                Problem::error("$", text, remedy)
            } else {
                let remedy = "fix the text at the line and column given";
                Problem::error("$", format!("not a JSON object: {text}"), remedy)
            };
            (policy, vec![problem])
        }
    }
}

/// Checks the text of a new document: first its JSON, then its language. Returns every problem of either kind.
pub fn check(bytes: &bytes::Bytes) -> Vec<Problem> {
    match PolicyDocument::parse(bytes.clone()) {
        Ok(document) => read_for_routing(document.bytes()).1,
        Err(problems) => problems,
    }
}

/// Reads an object of [`exact`] integers. Only conditions compare them as such.
pub fn read_exact(mut document: Map<String, Value>) -> (RoutingPolicy, Vec<Problem>) {
    exact::round_but(&mut document, &WITH_CONDITIONS, "when");
    read_object(&document)
}

/// Reads an object.
pub fn read_object(document: &Map<String, Value>) -> (RoutingPolicy, Vec<Problem>) {
    let mut notes = Notes::default();
    let root = At::Root;
    notes.unknown_keys(document, &root, &FIELDS);
    let providers = weights::providers(document, &mut notes);
    let (mut fallbacks, last_resort) = fallbacks::fallbacks(document, &mut notes);
    // A name that is there already is not kept twice.
    for to in fallbacks.iter_mut().filter_map(|rule| rule.to.as_mut()) {
        if let Ok(known) = providers.binary_search_by(|provider| provider.id.cmp(to)) {
            *to = providers[known].id.clone();
        }
    }
    let policy = RoutingPolicy {
        version: version(document, &mut notes),
        providers,
        fallbacks,
        last_resort,
        sticky: settings::sticky(document, &mut notes),
        circuit_breaker: settings::circuit_breaker(document, &mut notes),
        rate_limit: settings::rate_limit(document, &mut notes),
        pipeline: pipeline::pipeline(document, &mut notes),
        timeout_ms: settings::timeout_ms(document, &root, &mut notes),
        health_check: settings::health_check(document, &root, &mut notes),
        detail_level: detail_level(document, &mut notes),
        deprecated: deprecated(document, &mut notes),
    };
    (policy, notes.problems)
}

fn version(document: &Map<String, Value>, notes: &mut Notes) -> Box<str> {
    let at = At::Key(&At::Root, "version");
    match document.get("version") {
        None => "1.0".into(),
        Some(Value::String(text)) => {
            let is_number = |part: &str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
            if !text
                .split_once('.')
                .is_some_and(|(major, minor)| is_number(major) && is_number(minor))
            {
                notes.warn(at, "version is not MAJOR.MINOR", "write it like \"1.0\"");
            }
            text.as_str().into()
        }
        Some(_) => {
            notes.error(at, "version must be a string", "write it like \"1.0\"");
            "1.0".into()
        }
    }
}

fn detail_level(document: &Map<String, Value>, notes: &mut Notes) -> Option<DetailLevel> {
    let at = At::Key(&At::Root, "explanation");
    let explanation = notes.object(document.get("explanation"), at, "explanation")?;
    let at = At::Key(&at, "detail_level");
    let level = explanation.get("detail_level")?;
    let parsed = level.as_str().and_then(DetailLevel::parse);
    if parsed.is_none() {
        notes.warn(
            at,
            "there is no such detail_level",
            "use \"minimal\", \"detailed\" or \"verbose\"",
        );
    }
    parsed
}

fn deprecated(document: &Map<String, Value>, notes: &mut Notes) -> Option<Box<Deprecated>> {
    let root = At::Root;
    let object = |key, notes: &mut Notes| {
        notes
            .object(document.get(key), At::Key(&root, key), key)
            .cloned()
            .unwrap_or_default()
    };
    let escalate_on = notes.array(
        document.get("escalate_on"),
        At::Key(&root, "escalate_on"),
        "escalate_on",
    );
    let deprecated = Deprecated {
        metadata: object("metadata", notes),
        defaults: object("defaults", notes),
        escalate_on: escalate_on.unwrap_or_default().to_vec(),
    };
    for key in ["defaults", "escalate_on"]
        .into_iter()
        .filter(|key| document.contains_key(*key))
    {
        notes.warn(
            At::Key(&root, key),
            "the field is deprecated and never used for routing",
            "remove it",
        );
    }
    (deprecated != Deprecated::default()).then(|| Box::new(deprecated))
}
