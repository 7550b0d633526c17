//! The problems of a document, and the readers of values that add to them.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::policy::{Problem, json_path::At};

/// Longest key that is compared with the fields. A key of a megabyte resembles none, and comparing it would take long.
const LONGEST_COMPARED: usize = 32;

/// The field that a misspelt key probably stands for.
fn nearest<'f>(key: &str, fields: &[&'f str]) -> Option<&'f str> {
    if key.len() > LONGEST_COMPARED {
        return None;
    }
    let candidates = fields
        .iter()
        .map(|field| (strsim::damerau_levenshtein(key, field), *field));
    candidates
        .min()
        .filter(|(distance, _)| *distance <= 2)
        .map(|(_, field)| field)
}

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Notes {
    pub(super) problems: Vec<Problem>,
    errors: usize,
    compared: usize,
}

impl Notes {
    /// The first hundred errors and the first hundred warnings are kept. They are counted separately, so that warnings
    /// never hide an error, which refuses a write.
    const MOST: usize = 100;

    /// Unknown keys that a field is suggested for. Each is compared with every field, which takes longer than all
    /// else that is done with a key.
    const MOST_COMPARED: usize = 20;

    /// The first `most` of a list or object, with an error if it has more: reading and deciding by a policy take time
    /// for each of them.
    pub(super) fn limited<I: ExactSizeIterator>(
        &mut self,
        items: I,
        most: usize,
        at: At<'_>,
        name: &str,
    ) -> std::iter::Take<I> {
        if items.len() > most {
            let message = format!("{} {name} are more than {most}", items.len());
            let remedy = format!("remove some: only the first {most} are used");
            self.error(at, message, remedy);
        }
        items.take(most)
    }

    pub(super) fn error(&mut self, at: At<'_>, message: impl Display, remedy: impl Display) {
        if self.errors < Self::MOST {
            self.errors += 1;
            let problem = Problem::error(at.to_string(), message.to_string(), remedy.to_string());
            self.problems.push(problem);
        }
    }

    pub(super) fn warn(&mut self, at: At<'_>, message: impl Display, remedy: impl Display) {
        if self.takes_warnings() {
            let problem = Problem::warning(at.to_string(), message.to_string(), remedy.to_string());
            self.problems.push(problem);
        }
    }

    fn takes_warnings(&self) -> bool {
        self.problems.len() - self.errors < Self::MOST
    }

    /// The value as an object. A value of another type is an error.
    pub(super) fn object<'v>(
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

    /// The value as an array. A value of another type is an error.
    pub(super) fn array<'v>(
        &mut self,
        value: Option<&'v Value>,
        at: At<'_>,
        name: &str,
    ) -> Option<&'v [Value]> {
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

    /// The value as a boolean. A value of another type is an error.
    pub(super) fn boolean(&mut self, value: Option<&Value>, at: At<'_>, name: &str) -> Option<bool> {
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

    /// The value as a whole number in a range. A number outside it is an error and clamped; another type is an error.
    pub(super) fn whole(
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

    /// As [`whole`](Self::whole), for 32 bits.
    pub(super) fn whole_u32(
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

    /// Warns about keys that the language does not have for this object.
    pub(super) fn unknown_keys(&mut self, object: &Map<String, Value>, parent: &At<'_>, known: &[&str]) {
        for key in object.keys().filter(|key| !known.contains(&key.as_str())) {
            if !self.takes_warnings() {
                return;
            }
            self.compared += 1;
            let nearest = (self.compared <= Self::MOST_COMPARED)
                .then(|| nearest(key, known))
                .flatten();
            let remedy = match nearest {
                Some(field) => format!("did you mean `{field}`? The field is ignored"),
                None => "remove it: the field is ignored".to_owned(),
            };
            self.warn(At::Key(parent, key), "there is no such field", remedy);
        }
    }
}
