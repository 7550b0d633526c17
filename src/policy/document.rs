//! One policy document: its exact bytes, checked to be a JSON object without ambiguity.
//!
//! Two parsers that disagree about a document are two routing decisions, so everything that JSON leaves open is
//! refused here: a key given twice, a number outside `f64`, unbounded nesting. Every mistake is collected with its JSON
//! path and its remedy.

use std::{cell::RefCell, collections::HashSet, fmt};

use bytes::Bytes;
use serde::{
    Serialize,
    de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor},
};

use super::{ETag, json_path::At};

/// Deepest nesting of objects and arrays in a policy. The platform's own documents use five levels.
pub const MAX_DEPTH: usize = 64;

/// How severe a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document is refused.
    Error,
    /// The document is accepted and the problem reported.
    Warning,
}

/// One thing wrong with a document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, schemars::JsonSchema)]
pub struct Problem {
    /// Where, as a JSON path: `$.providers[1].name`; `$` is the whole document.
    pub path: String,
    /// Whether the document is refused for it.
    pub severity: Severity,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub remedy: String,
}

/// How the message begins if the text is not JSON, or JSON that is nested too deeply to be read.
const NOT_JSON: &str = "not valid JSON: ";

impl Problem {
    /// Whether the text could not be read as JSON, as opposed to JSON that is not an acceptable document.
    pub fn is_not_json(&self) -> bool {
        self.message.starts_with(NOT_JSON)
    }

    /// A problem for which the document is refused. `path` is a JSON path.
    pub fn error(path: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            severity: Severity::Error,
            message: message.into(),
            remedy: remedy.into(),
        }
    }

    /// A problem that is reported and refuses nothing. `path` is a JSON path.
    pub fn warning(path: impl Into<String>, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(path, message, remedy)
        }
    }
}

/// Those among the problems for which the document is refused.
pub fn errors(problems: &[Problem]) -> impl Iterator<Item = &Problem> {
    problems
        .iter()
        .filter(|problem| problem.severity == Severity::Error)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.path, self.message, self.remedy)
    }
}

/// A policy as HEIR stores it: the bytes are never rewritten.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyDocument {
    bytes: Bytes,
    etag: ETag,
}

impl PolicyDocument {
    /// Checks the bytes and reports every problem. The tag is computed from the bytes.
    pub fn parse(bytes: Bytes) -> Result<Self, Vec<Problem>> {
        Self::parse_tagged(bytes, None)
    }

    /// As [`parse`](Self::parse), keeping the tag that HEIR gave this document.
    pub fn parse_tagged(bytes: Bytes, etag: Option<ETag>) -> Result<Self, Vec<Problem>> {
        check_object(&bytes)?;
        Ok(Self::trusted(bytes, etag))
    }

    /// Accepts bytes that were checked before they were written with a checksum (the disk snapshot, the journal).
    pub fn trusted(bytes: Bytes, etag: Option<ETag>) -> Self {
        let etag = etag.unwrap_or_else(|| ETag::of_bytes(&bytes));
        Self { bytes, etag }
    }

    /// The document, byte for byte.
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The tag of the bytes: HEIR's, or a digest.
    pub fn etag(&self) -> &ETag {
        &self.etag
    }
}

fn check_object(bytes: &[u8]) -> Result<(), Vec<Problem>> {
    let found = Findings::default();
    let mut json = serde_json::Deserializer::from_slice(bytes);
    let parsed = Check {
        at: &At::Root,
        depth: 0,
        found: &found,
    }
    .deserialize(&mut json)
    .and_then(|kind| {
        json.end()?;
        Ok(kind)
    });
    let mut problems = found.0.into_inner();
    match parsed {
        Ok(Kind::Object) => {}
        Ok(Kind::Other(kind)) => problems.push(Problem::error(
            "$",
            format!("the document is {kind}"),
            "send one JSON object, for example {\"providers\":[{\"name\":\"openai\",\"weight\":100}]}",
        )),
        Err(error) => problems.push(Problem::error(
            "$",
            format!("{NOT_JSON}{error}"),
            "fix the text at the line and column given",
        )),
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(problems)
    }
}

#[derive(Default)]
struct Findings(RefCell<Vec<Problem>>);

impl Findings {
    /// A document of a megabyte can repeat a key a hundred thousand times; the first hundred are enough.
    const MOST: usize = 100;

    fn add(&self, problem: impl FnOnce() -> Problem) {
        let mut list = self.0.borrow_mut();
        if list.len() < Self::MOST {
            list.push(problem());
        }
    }
}

enum Kind {
    Object,
    Other(&'static str),
}

struct Check<'a> {
    at: &'a At<'a>,
    depth: usize,
    found: &'a Findings,
}

impl Check<'_> {
    /// Reports a level that is too deep and stops the parse there.
    fn refuse_depth<E: serde::de::Error>(&self) -> Result<(), E> {
        if self.depth < MAX_DEPTH {
            return Ok(());
        }
        Err(E::custom(format_args!("nested deeper than {MAX_DEPTH} levels")))
    }
}

impl<'de> DeserializeSeed<'de> for Check<'_> {
    type Value = Kind;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Kind, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Check<'_> {
    type Value = Kind;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, _: bool) -> Result<Kind, E> {
        Ok(Kind::Other("a boolean"))
    }
    fn visit_i64<E>(self, _: i64) -> Result<Kind, E> {
        Ok(Kind::Other("a number"))
    }
    fn visit_u64<E>(self, _: u64) -> Result<Kind, E> {
        Ok(Kind::Other("a number"))
    }
    fn visit_f64<E>(self, _: f64) -> Result<Kind, E> {
        Ok(Kind::Other("a number"))
    }
    fn visit_str<E>(self, _: &str) -> Result<Kind, E> {
        Ok(Kind::Other("a string"))
    }
    fn visit_unit<E>(self) -> Result<Kind, E> {
        Ok(Kind::Other("null"))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Kind, A::Error> {
        self.refuse_depth()?;
        let mut index = 0;
        while items
            .next_element_seed(Check {
                at: &At::Index(self.at, index),
                depth: self.depth + 1,
                found: self.found,
            })?
            .is_some()
        {
            index += 1;
        }
        Ok(Kind::Other("an array"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Kind, A::Error> {
        self.refuse_depth()?;
        let mut seen = Keys::default();
        while let Some(key) = entries.next_key::<Key<'de>>()? {
            let at = At::Key(self.at, &key.0);
            entries.next_value_seed(Check {
                at: &at,
                depth: self.depth + 1,
                found: self.found,
            })?;
            if seen.contains(&key.0) {
                let remedy = "keep one: readers differ in which of the two they use";
                self.found
                    .add(|| Problem::error(at.to_string(), "the key is given twice", remedy));
            } else {
                seen.insert(key.0);
            }
        }
        Ok(Kind::Object)
    }
}

/// An object's keys: a list while it is short, because comparing eight short texts is cheaper than hashing one.
#[derive(Default)]
struct Keys<'de> {
    few: Vec<std::borrow::Cow<'de, str>>,
    many: HashSet<std::borrow::Cow<'de, str>>,
}

impl<'de> Keys<'de> {
    fn contains(&self, key: &str) -> bool {
        self.few.iter().any(|seen| seen == key) || self.many.contains(key)
    }

    fn insert(&mut self, key: std::borrow::Cow<'de, str>) {
        if self.few.len() < 8 {
            self.few.push(key);
        } else {
            self.many.insert(key);
        }
    }
}

/// A key borrowed from the text unless it holds an escape.
struct Key<'de>(std::borrow::Cow<'de, str>);

impl<'de> serde::Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Key<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        match PolicyDocument::parse(Bytes::copy_from_slice(text.as_bytes())) {
            Ok(_) => Vec::new(),
            Err(problems) => problems
                .iter()
                .map(|p| format!("{} {}", p.path, p.message))
                .collect(),
        }
    }

    #[test]
    fn objects_are_taken_byte_for_byte() {
        let text = "{ \"b\" : 50.0,\n\"a\":[1,{\"x\":\"\\u00e9\"}], \"unknown\":null}";
        let document = PolicyDocument::parse(Bytes::from_static(text.as_bytes())).unwrap();
        assert_eq!(document.bytes(), text.as_bytes());
    }

    #[test]
    fn anything_but_an_object_is_refused() {
        for (text, kind) in [
            ("[]", "an array"),
            ("\"x\"", "a string"),
            ("1", "a number"),
            ("-1", "a number"),
            ("1.5", "a number"),
            ("null", "null"),
            ("true", "a boolean"),
        ] {
            assert_eq!(problems(text), [format!("$ the document is {kind}")]);
        }
        for text in [
            "",
            "{",
            "{}{}",
            "{\"a\":NaN}",
            "{\"a\":1e400}",
            "{'a':1}",
            "\u{feff}{}",
            "{\"a\":\"\u{1}\"}",
        ] {
            assert_eq!(problems(text).len(), 1, "{text:?}");
        }
    }

    #[test]
    fn every_repeated_key_is_named_with_its_path() {
        let text = r#"{"a":1,"b":[{"c":1,"d e":{"x":1,"\u0078":2},"c":2}],"a":2}"#;
        assert_eq!(
            problems(text),
            [
                "$.b[0][\"d e\"].x the key is given twice",
                "$.b[0].c the key is given twice",
                "$.a the key is given twice"
            ]
        );
        let many: String = (0..40).map(|i| format!("\"k{i}\":0,")).collect();
        assert_eq!(
            problems(&format!("{{{many}\"k39\":1}}")),
            ["$.k39 the key is given twice"]
        );
    }

    #[test]
    fn nesting_is_bounded() {
        let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(problems(&nested(MAX_DEPTH - 1)), Vec::<String>::new());
        assert_eq!(problems(&nested(MAX_DEPTH)).len(), 1);
        assert_eq!(problems(&nested(1_000_000)).len(), 1);
    }
}
