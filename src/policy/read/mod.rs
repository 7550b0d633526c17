//! From a document to the valid policy: leniently, because a stored policy must not be lost to a mistake that its
//! author was never told of; and with every mistake noted, because a new one is refused for them.
//!
//! The forms that the language has had, and their mixes, are all read here. An error among the problems means that a
//! write of this document is refused; a load takes the document all the same, as far as it makes sense.

mod fallbacks;
mod pipeline;
mod settings;
#[cfg(test)]
mod tests;
mod weights;

use std::fmt::Display;

use serde_json::{Map, Value};

use super::{
    Deprecated, DetailLevel, Problem, RoutingPolicy,
    document::{At, PolicyDocument},
};

/// Top-level fields of the language.
const FIELDS: [&str; 20] = [
    "version",
    "policy_id",
    "tenant_id",
    "providers",
    "weights",
    "fallbacks",
    "fallback",
    "sticky",
    "pre",
    "validators",
    "scorers",
    "post",
    "circuit_breaker",
    "rate_limit",
    "timeout_ms",
    "health_check",
    "explanation",
    "metadata",
    "defaults",
    "escalate_on",
];

/// Reads a document whose JSON was checked. Other bytes make an empty policy and one error.
pub fn read(bytes: &[u8]) -> (RoutingPolicy, Vec<Problem>) {
    match serde_json::from_slice::<Map<String, Value>>(bytes) {
        Ok(document) => read_object(&document),
        Err(error) => {
            let (policy, _) = read_object(&Map::new());
            let problem = Problem::error(
                "$",
                format!("not a JSON object: {error}"),
                "mend the text at the place named",
            );
            (policy, vec![problem])
        }
    }
}

/// Reads and judges the text of a new document: its JSON, then its language. Every problem of either kind.
pub fn check(bytes: &bytes::Bytes) -> Vec<Problem> {
    match PolicyDocument::parse(bytes.clone()) {
        Ok(document) => read(document.bytes()).1,
        Err(problems) => problems,
    }
}

/// Reads an object.
pub fn read_object(document: &Map<String, Value>) -> (RoutingPolicy, Vec<Problem>) {
    let mut notes = Notes::default();
    let root = At::Root;
    for key in document.keys().filter(|key| !FIELDS.contains(&key.as_str())) {
        let remedy = match nearest(key, &FIELDS) {
            Some(field) => format!("did you mean `{field}`? The field is ignored"),
            None => "remove it: the field is ignored".to_owned(),
        };
        notes.warn(At::Key(&root, key), "there is no such field", remedy);
    }
    let providers = weights::providers(document, &mut notes);
    let (fallbacks, last_resort) = fallbacks::fallbacks(document, &mut notes);
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

/// The field that a misspelt one was meant to be.
fn nearest<'f>(key: &str, fields: &[&'f str]) -> Option<&'f str> {
    let candidates = fields
        .iter()
        .map(|field| (strsim::damerau_levenshtein(key, field), *field));
    // A key of a megabyte is like nothing, and finding that out would take its time.
    candidates
        .filter(|_| key.len() <= 32)
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, field)| field)
}

/// The problems found so far.
#[derive(Debug, Default)]
struct Notes {
    problems: Vec<Problem>,
    errors: usize,
}

impl Notes {
    /// The first hundred of a kind say enough, of however many. However many warnings there are, an error is told: it
    /// refuses a write.
    const MOST: usize = 100;

    fn error(&mut self, at: At<'_>, message: impl Display, remedy: impl Display) {
        if self.errors < Self::MOST {
            self.errors += 1;
            let problem = Problem::error(at.to_string(), message.to_string(), remedy.to_string());
            self.problems.push(problem);
        }
    }

    fn warn(&mut self, at: At<'_>, message: impl Display, remedy: impl Display) {
        if self.problems.len() - self.errors < Self::MOST {
            let problem = Problem::warning(at.to_string(), message.to_string(), remedy.to_string());
            self.problems.push(problem);
        }
    }

    /// The value as an object. Anything else but nothing is an error.
    fn object<'v>(
        &mut self,
        value: Option<&'v Value>,
        at: At<'_>,
        name: &str,
    ) -> Option<&'v Map<String, Value>> {
        let value = value?;
        let object = value.as_object();
        if object.is_none() {
            self.error(
                at,
                format_args!("{name} must be an object"),
                "write an object, or remove the field",
            );
        }
        object
    }

    /// The value as an array. Anything else but nothing is an error.
    fn array<'v>(&mut self, value: Option<&'v Value>, at: At<'_>, name: &str) -> Option<&'v [Value]> {
        let value = value?;
        let array = value.as_array();
        if array.is_none() {
            self.error(
                at,
                format_args!("{name} must be an array"),
                "write an array, or remove the field",
            );
        }
        array.map(Vec::as_slice)
    }

    /// The value as a boolean. Anything else but nothing is an error.
    fn boolean(&mut self, value: Option<&Value>, at: At<'_>, name: &str) -> Option<bool> {
        let value = value?;
        if value.as_bool().is_none() {
            self.error(
                at,
                format_args!("{name} must be a boolean"),
                "write true or false",
            );
        }
        value.as_bool()
    }

    /// The value as a whole number in a range. One outside is an error and clamped; no number is an error.
    fn whole(
        &mut self,
        object: &Map<String, Value>,
        parent: &At<'_>,
        key: &str,
        range: std::ops::RangeInclusive<i64>,
    ) -> Option<i64> {
        let at = At::Key(parent, key);
        let value = object.get(key)?;
        let number = match value {
            Value::Number(number) => number.as_i64().or_else(|| number.as_u64().map(|_large| i64::MAX)),
            _ => None,
        };
        let (low, high) = (*range.start(), *range.end());
        let wanted = format_args!("write a whole number from {low} to {high}");
        let Some(number) = number else {
            self.error(at, format_args!("{key} must be an integer"), wanted);
            return None;
        };
        if !range.contains(&number) {
            self.error(at, format_args!("{key} must be {low} to {high}"), wanted);
        }
        Some(number.clamp(low, high))
    }

    /// As [`whole`](Self::whole), for what is counted in 32 bits.
    fn whole_u32(
        &mut self,
        object: &Map<String, Value>,
        parent: &At<'_>,
        key: &str,
        range: std::ops::RangeInclusive<u32>,
    ) -> Option<u32> {
        let range = i64::from(*range.start())..=i64::from(*range.end());
        self.whole(object, parent, key, range)
            .and_then(|number| u32::try_from(number).ok())
    }

    /// Warns of keys that an object does not have.
    fn unknown_keys(&mut self, object: &Map<String, Value>, parent: &At<'_>, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            let remedy = match nearest(key, known) {
                Some(field) => format!("did you mean `{field}`? The field is ignored"),
                None => "remove it: the field is ignored".to_owned(),
            };
            self.warn(At::Key(parent, key), "there is no such field", remedy);
        }
    }
}
