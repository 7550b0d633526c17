//! Which parts of a JSON value an extension works on.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Deserializer, de};

use crate::{Failure, Json, walk::walk};

/// A JSON Pointer (RFC 6901) in which the segment `*` stands for any key or index. Empty is the whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pointer(Vec<String>);

impl Pointer {
    /// Reads a pointer; `None` where the text is neither empty nor starts with `/`.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self(Vec::new()));
        }
        let segments = text.strip_prefix('/')?.split('/');
        Some(Self(
            segments
                .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
                .collect(),
        ))
    }

    /// Whether the place is this one or lies beneath it.
    fn holds(&self, place: &Place<'_>) -> bool {
        let depth = place.depth();
        let mut place = Some(place);
        // From the end of the place to its root, past what lies beneath the pointer.
        for level in (0..depth).rev() {
            let Some(Place::In { parent, step }) = place else {
                return false;
            };
            if let Some(segment) = self.0.get(level)
                && !step.is(segment)
            {
                return false;
            }
            place = Some(parent);
        }
        depth >= self.0.len()
    }
}

impl<'de> Deserialize<'de> for Pointer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text)
            .ok_or_else(|| de::Error::custom("expected a JSON Pointer: empty, or starting with `/`"))
    }
}

/// What to work on: `only` these places (and what lies beneath them), but `not` those.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fields {
    /// The places to work on. `[""]` is everything.
    pub only: Vec<Pointer>,
    /// The places to leave alone.
    pub not: Vec<Pointer>,
}

impl Default for Fields {
    fn default() -> Self {
        Self {
            only: vec![Pointer(Vec::new())],
            not: Vec::new(),
        }
    }
}

impl Fields {
    /// Shows every string, integer and key that is meant, in the order of the text, with its place.
    /// Integers come as their digits; a key comes with the place of its value.
    ///
    /// # Errors
    /// `unexpected_json` where the text is not JSON, or nests deeper than 127 levels.
    pub fn visit(&self, json: &Json, visit: &mut impl FnMut(&Place<'_>, &str)) -> Result<(), Failure> {
        walk(json, self, &mut |_, place, text, _| {
            visit(place, text);
            false
        })
        .map(drop)
    }

    /// Offers every string, integer and key that is meant to `edit`, which answers with its
    /// replacement, if any: the JSON with all replacements, or nothing where there is none. Whatever
    /// is not replaced stays as it was, to the byte. A replacement is a string, for an integer too;
    /// keys of one object that became the same are distinguished by a number.
    ///
    /// # Errors
    /// `unexpected_json` where the text is not JSON, or nests deeper than 127 levels.
    pub fn edit(
        &self,
        json: &Json,
        edit: &mut impl FnMut(Part, &str) -> Option<String>,
    ) -> Result<Option<Json>, Failure> {
        self.rewrite(json, &mut |part, text, new| {
            edit(part, text).inspect(|edited| new.push_str(edited)).is_some()
        })
    }

    /// As [`Fields::edit`], for many or long texts: `edit` writes a replacement into an empty text that is used again for the
    /// next one, and says whether it did.
    ///
    /// # Errors
    /// As those of [`Fields::edit`].
    pub fn rewrite(
        &self,
        json: &Json,
        edit: &mut impl FnMut(Part, &str, &mut String) -> bool,
    ) -> Result<Option<Json>, Failure> {
        walk(json, self, &mut |part, _, text, new| edit(part, text, new))
    }

    pub(crate) fn mean(&self, place: &Place<'_>) -> bool {
        self.only.iter().any(|pointer| pointer.holds(place))
            && !self.not.iter().any(|pointer| pointer.holds(place))
    }
}

/// What is shown of a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// A string.
    Text,
    /// A number without a fraction or an exponent.
    Integer,
    /// The key of an object.
    Key,
}

/// A place in a value, built without copying keys.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The whole value.
    Root,
    /// Within another place.
    In {
        /// That place.
        parent: &'a Place<'a>,
        /// The way from it.
        step: Step<'a>,
    },
}

/// One step into a value.
#[derive(Debug, Clone, Copy)]
pub enum Step<'a> {
    /// To an object's key.
    Key(&'a str),
    /// To an array's index.
    Index(usize),
}

impl Step<'_> {
    fn is(&self, segment: &str) -> bool {
        segment == "*"
            || match self {
                Self::Key(key) => *key == segment,
                Self::Index(index) => segment.parse() == Ok(*index),
            }
    }
}

impl Place<'_> {
    pub(crate) fn at<'a>(&'a self, step: Step<'a>) -> Place<'a> {
        Place::In { parent: self, step }
    }

    fn depth(&self) -> usize {
        match self {
            Self::Root => 0,
            Self::In { parent, .. } => parent.depth() + 1,
        }
    }

    /// The place as a JSON Pointer that repeats no key that may be data itself: a key is shown when
    /// it has at most 64 ASCII letters, digits, `_` and `-`, no more than four of them digits;
    /// otherwise `*` stands for it.
    pub fn shown(&self) -> String {
        match self {
            Self::Root => String::new(),
            Self::In { parent, step } => {
                let mut shown = parent.shown();
                // Writing to a string cannot fail.
                let _ = match step {
                    Step::Index(index) => write!(shown, "/{index}"),
                    Step::Key(key) if is_plain(key) => write!(shown, "/{key}"),
                    Step::Key(_) => write!(shown, "/*"),
                };
                shown
            }
        }
    }
}

fn is_plain(key: &str) -> bool {
    key.len() <= 64
        && key
            .bytes()
            .all(|c| c.is_ascii_alphanumeric() || c == b'_' || c == b'-')
        && key.bytes().filter(u8::is_ascii_digit).count() <= 4
}

impl fmt::Display for Pointer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0
            .iter()
            .try_for_each(|segment| write!(f, "/{}", escape(segment)))
    }
}

/// One segment as a JSON Pointer writes it.
pub(crate) fn escape(segment: &str) -> String {
    segment.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn fields(only: &[&str], not: &[&str]) -> Fields {
        let parse = |texts: &[&str]| texts.iter().map(|text| Pointer::parse(text).unwrap()).collect();
        Fields {
            only: parse(only),
            not: parse(not),
        }
    }

    fn seen(fields: &Fields, value: &Value) -> Vec<(String, String)> {
        let mut seen = Vec::new();
        let see = &mut |place: &Place<'_>, text: &str| seen.push((place.shown(), text.to_owned()));
        fields.visit(&value.into(), see).unwrap();
        seen
    }

    #[test]
    fn shows_keys_strings_and_integers_with_their_place() {
        let value = json!({"a": ["x", 12, 1.5, null, true], "b c": {"d": "y"}});
        let seen = seen(&Fields::default(), &value);
        let seen: Vec<_> = seen
            .iter()
            .map(|(place, text)| (place.as_str(), text.as_str()))
            .collect();
        assert_eq!(
            seen,
            [
                ("/a", "a"),
                ("/a/0", "x"),
                ("/a/1", "12"),
                ("/*", "b c"),
                ("/*/d", "d"),
                ("/*/d", "y"),
            ]
        );
    }

    #[test]
    fn a_root_that_is_text_has_an_empty_place() {
        assert_eq!(
            seen(&Fields::default(), &json!("x")),
            [(String::new(), "x".into())]
        );
    }

    #[test]
    fn only_what_is_meant_is_shown() {
        let value = json!({"messages": [{"content": "x", "role": "u"}, {"content": "y"}], "id": "z"});
        let texts = |fields: Fields| -> Vec<String> {
            seen(&fields, &value).into_iter().map(|(_, text)| text).collect()
        };
        assert_eq!(
            texts(fields(&["/messages/*/content"], &[])),
            ["content", "x", "content", "y"]
        );
        assert_eq!(texts(fields(&["/messages/1"], &[])), ["content", "y"]);
        assert_eq!(texts(fields(&[""], &["/messages"])), ["id", "z"]);
        assert_eq!(texts(fields(&["/nothing"], &[])), Vec::<String>::new());
    }

    #[test]
    fn keys_that_may_be_data_are_not_shown() {
        for key in ["a@b.example", "4111111111111111", "AB123456C", "x/y", ""] {
            let shown = &seen(&Fields::default(), &json!({key: "v"}))[1].0;
            assert!(shown == "/*" || key.is_empty(), "{key}: {shown}");
        }
    }

    #[test]
    fn edits_strings_only_where_meant() {
        let json = Json::from(&json!({"a": "x", "b": ["x", {"c": "x"}], "d": 1}));
        let upper = &mut |part, text: &str| (part == Part::Text).then(|| text.to_uppercase());
        let edited = fields(&["/b"], &["/b/1"]).edit(&json, upper).unwrap();
        let wanted = Json::from(&json!({"a": "x", "b": ["X", {"c": "x"}], "d": 1}));
        assert_eq!(edited, Some(wanted));
        assert_eq!(Fields::default().edit(&json, &mut |_, _| None), Ok(None));
    }

    #[test]
    fn a_pointer_is_read_and_written() {
        for text in ["", "/a", "/a~1b/~0/*"] {
            assert_eq!(Pointer::parse(text).unwrap().to_string(), text);
        }
        assert_eq!(Pointer::parse("a"), None);
    }
}
