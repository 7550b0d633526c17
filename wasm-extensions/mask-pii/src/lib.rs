//! Masks personal data instead of refusing it. As a pre-processor it masks the message's payload; as a
//! post-processor the parts of the context that go into the decision's metadata.

mod mask;

use std::collections::BTreeMap;

use beamline_extension_sdk::{
    Call, Decision, Extension, Failure, Fields, Json, Message, Pointer, PostProcessor, PreOutput,
    PreProcessor, Problem,
};
use personal_data::{Finder, Kind};
use serde::Deserialize;
use serde_json::value::RawValue;

/// The extension, in both worlds.
#[derive(Debug)]
pub struct MaskPii;

/// What to look for, where, and what is written instead.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// The kinds that are masked.
    pub kinds: Vec<Kind>,
    /// The platform's own word for one more kind, or one less: `email`.
    pub mask_email: Option<bool>,
    /// As above: `phone`.
    pub mask_phone: Option<bool>,
    /// Where to look, in the payload or in the context: JSON Pointers, in which `*` stands for any
    /// key or index.
    pub fields: Vec<Pointer>,
    /// Where not to look.
    pub ignore: Vec<Pointer>,
    /// Values that are left as they are; `@example.com` leaves a mail domain.
    pub allow: Vec<String>,
    /// What is written instead.
    pub style: Style,
    /// Stands for each letter and digit, where the style is `characters`.
    pub mask: char,
    /// How many letters and digits at the end stay, where the style is `characters`: at most 4.
    pub keep_last: u8,
}

/// What is written instead of what was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Style {
    /// The mask for each letter and digit; what stands between them stays.
    #[default]
    Characters,
    /// The name of the kind: `[email]`.
    Label,
}

impl Default for Config {
    fn default() -> Self {
        let Fields { only, not } = Fields::default();
        Self {
            kinds: Kind::DEFAULT.to_vec(),
            mask_email: None,
            mask_phone: None,
            fields: only,
            ignore: not,
            allow: Vec::new(),
            style: Style::default(),
            mask: '*',
            keep_last: 0,
        }
    }
}

/// More would reveal too much of a short text.
const MOST_KEPT: u8 = 4;

impl Config {
    /// The kinds that are meant after all, in the order in which they are reported.
    fn kinds(&self) -> Vec<Kind> {
        let is_meant = |kind: &Kind| {
            let own = match kind {
                Kind::Email => self.mask_email,
                Kind::Phone => self.mask_phone,
                _ => None,
            };
            own.unwrap_or_else(|| self.kinds.contains(kind))
        };
        Kind::ALL.into_iter().filter(is_meant).collect()
    }

    fn masked(&self, json: &Json) -> Result<Option<Json>, Failure> {
        let fields = Fields {
            only: self.fields.clone(),
            not: self.ignore.clone(),
        };
        let kinds = self.kinds();
        let mut finder = Finder::default();
        fields.rewrite(json, &mut |_, text, masked| {
            mask::mask(text, &kinds, self, &mut finder, masked)
        })
    }
}

impl Extension for MaskPii {
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        if config.kinds().is_empty() {
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
        for (index, entry) in config.allow.iter().enumerate() {
            if entry.chars().filter(char::is_ascii_alphanumeric).count() < 3 {
                let path = format!("/allow/{index}");
                problems.push(Problem::new(
                    path,
                    "too short to name a value: three letters or digits at least",
                ));
            }
        }
        if config.mask.is_alphanumeric() || config.mask.is_whitespace() || config.mask.is_control() {
            problems.push(Problem::new(
                "/mask",
                "must be a sign: no letter, digit, blank or control character",
            ));
        }
        if config.keep_last > MOST_KEPT {
            problems.push(Problem::new("/keep_last", "must be from 0 to 4"));
        }
        problems
    }
}

impl PreProcessor for MaskPii {
    fn process(call: &Call<Config>, message: Message) -> Result<PreOutput, Failure> {
        let payload = call.config.masked(&message.payload)?;
        Ok(PreOutput {
            message: payload.map(|payload| Message { payload, ..message }),
            context: None,
        })
    }
}

impl PostProcessor for MaskPii {
    /// The decision itself holds no personal data, but its metadata may repeat the context: whatever
    /// had to be masked there is laid over it.
    fn process(call: &Call<Config>, _: &Decision) -> Result<Option<Json>, Failure> {
        let Some(masked) = call.config.masked(&call.context)? else {
            return Ok(None);
        };
        let before: BTreeMap<String, &RawValue> = call.context.read()?;
        let mut after: BTreeMap<String, &RawValue> = masked.read()?;
        after.retain(|key, value| before.get(key).is_none_or(|before| before.get() != value.get()));
        Json::write(&after).map(Some)
    }
}

#[cfg(test)]
mod tests;
