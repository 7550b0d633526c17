//! What is refused, and how it is reported without repeating it.

use std::collections::BTreeMap;

use beamline_extension_sdk::{
    Call, Extension, Failure, Fields, Json, Message, Pointer, Problem, Rejection, Validator, Verdict,
};
use personal_data::{Finder, Kind, is_allowed};
use serde::Deserialize;
use serde_json::json;

/// The extension.
#[derive(Debug)]
pub struct PiiGuard;

/// What to look for, where, and how much of it is too much.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The kinds looked for.
    pub kinds: Vec<Kind>,
    /// Where to look in the payload: JSON Pointers, in which `*` stands for any key or index.
    pub fields: Vec<Pointer>,
    /// Where not to look.
    pub ignore: Vec<Pointer>,
    /// How many of a kind are let pass; none unless said.
    pub thresholds: BTreeMap<Kind, u32>,
    /// Values that are let pass; `@example.com` lets a mail domain pass.
    pub allow: Vec<String>,
}

impl Default for Config {
    fn default() -> Self {
        let Fields { only, not } = Fields::default();
        Self {
            kinds: Kind::DEFAULT.to_vec(),
            fields: only,
            ignore: not,
            thresholds: BTreeMap::new(),
            allow: Vec::new(),
        }
    }
}

/// The most places that are reported for a kind.
const PLACES: usize = 8;

impl Extension for PiiGuard {
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        if config.kinds.is_empty() {
            problems.push(Problem::new(
                "/kinds",
                "name at least one kind, or leave the key out",
            ));
        }
        if config.fields.is_empty() {
            problems.push(Problem::new(
                "/fields",
                "name at least one place, or leave the key out",
            ));
        }
        for kind in config
            .thresholds
            .keys()
            .filter(|kind| !config.kinds.contains(kind))
        {
            let path = format!("/thresholds/{}", kind.name());
            problems.push(Problem::new(path, "this kind is not looked for: add it to kinds"));
        }
        for (index, entry) in config.allow.iter().enumerate() {
            if entry.chars().filter(char::is_ascii_alphanumeric).count() < 3 {
                let path = format!("/allow/{index}");
                problems.push(Problem::new(
                    path,
                    "too short to name a value: three letters or digits at least",
                ));
            }
        }
        problems
    }
}

impl Validator for PiiGuard {
    fn validate(call: &Call<Config>, message: &Message) -> Result<Verdict, Failure> {
        Ok(examine(&call.config, &message.payload)?.verdict(&call.config))
    }
}

/// What was found: how many of each kind, and where, never what.
#[derive(Debug, Default)]
struct Findings(BTreeMap<Kind, Finding>);

#[derive(Debug, Default)]
struct Finding {
    count: u32,
    places: Vec<String>,
}

fn examine(config: &Config, payload: &Json) -> Result<Findings, Failure> {
    let mut findings = Findings::default();
    let fields = Fields {
        only: config.fields.clone(),
        not: config.ignore.clone(),
    };
    let mut finder = Finder::default();
    fields.visit(payload, &mut |place, text| {
        for found in finder.find(text, &config.kinds) {
            if is_allowed(&text[found.at.clone()], &config.allow) {
                continue;
            }
            let finding = findings.0.entry(found.kind).or_default();
            finding.count = finding.count.saturating_add(1);
            if finding.places.len() < PLACES {
                let place = place.shown();
                if !finding.places.contains(&place) {
                    finding.places.push(place);
                }
            }
        }
    })?;
    Ok(findings)
}

impl Findings {
    fn verdict(&self, config: &Config) -> Verdict {
        let too_many: Vec<_> = self
            .0
            .iter()
            .filter(|(kind, finding)| finding.count > config.thresholds.get(kind).copied().unwrap_or(0))
            .collect();
        if too_many.is_empty() {
            return Verdict::Accept;
        }
        let named: Vec<_> = too_many
            .iter()
            .map(|(kind, finding)| format!("{} ({})", kind.name(), finding.count))
            .collect();
        let found: Vec<_> = too_many
            .iter()
            .map(|(kind, finding)| json!({"kind": kind.name(), "count": finding.count, "fields": finding.places}))
            .collect();
        Verdict::Reject(Rejection {
            reason: format!("personal data in the message: {}", named.join(", ")),
            details: Json::from(&json!({"found": found})),
        })
    }
}
