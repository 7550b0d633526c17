//! Going through JSON text without building values of it: what is not replaced stays byte for byte as
//! it was, numbers, order and blanks included.

use std::borrow::Cow;

use crate::{
    Failure, Json,
    fields::{Fields, Part, Place, Step},
};

/// How deep values may nest: as deep as [`Json::value`] reads.
const DEPTH: usize = 127;

/// Shows each part that `fields` means to `edit`, which answers with its replacement, if any. The JSON
/// with all replacements, or nothing where there was none.
pub(crate) fn walk(
    json: &Json,
    fields: &Fields,
    edit: &mut dyn FnMut(Part, &Place<'_>, &str) -> Option<String>,
) -> Result<Option<Json>, Failure> {
    let mut walk = Walk {
        text: json.text(),
        at: 0,
        copied: 0,
        out: String::new(),
        fields,
        edit,
    };
    walk.value(&Place::Root, 0)?;
    if walk.peek().is_some() {
        return Err(walk.failure());
    }
    if walk.copied == 0 {
        return Ok(None);
    }
    walk.out.push_str(&walk.text[walk.copied..]);
    Ok(Some(Json::from_text(walk.out)))
}

struct Walk<'a> {
    text: &'a str,
    /// How far the text has been read.
    at: usize,
    /// How far it has been copied to `out`; 0 until something is replaced.
    copied: usize,
    out: String,
    fields: &'a Fields,
    edit: &'a mut dyn FnMut(Part, &Place<'_>, &str) -> Option<String>,
}

impl<'a> Walk<'a> {
    fn value(&mut self, place: &Place<'_>, depth: usize) -> Result<(), Failure> {
        if depth > DEPTH {
            return Err(self.failure());
        }
        match self.peek() {
            Some(b'{') => self.object(place, depth),
            Some(b'[') => self.array(place, depth),
            Some(b'"') => {
                let (start, text) = self.string()?;
                if self.fields.mean(place) {
                    let edited = (self.edit)(Part::Text, place, &text);
                    self.replace(start, edited);
                }
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                let number = self.run(|c| matches!(c, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
                let is_integer = number.bytes().all(|c| c == b'-' || c.is_ascii_digit());
                if is_integer && self.fields.mean(place) {
                    let edited = (self.edit)(Part::Integer, place, number);
                    self.replace(start, edited);
                }
                Ok(())
            }
            Some(b'a'..=b'z') => {
                self.run(|c| c.is_ascii_lowercase());
                Ok(())
            }
            _ => Err(self.failure()),
        }
    }

    fn array(&mut self, place: &Place<'_>, depth: usize) -> Result<(), Failure> {
        self.at += 1;
        if self.skip(b']') {
            return Ok(());
        }
        for index in 0.. {
            self.value(&place.at(Step::Index(index)), depth + 1)?;
            if self.skip(b']') {
                break;
            }
            self.expect(b',')?;
        }
        Ok(())
    }

    fn object(&mut self, place: &Place<'_>, depth: usize) -> Result<(), Failure> {
        self.at += 1;
        if self.skip(b'}') {
            return Ok(());
        }
        let mut new_keys = Vec::new();
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.failure());
            }
            let (start, key) = self.string()?;
            let place = place.at(Step::Key(&key));
            if self.fields.mean(&place)
                && let Some(new) = (self.edit)(Part::Key, &place, &key)
            {
                let new = unlike(new, &new_keys);
                new_keys.push(new.clone());
                self.replace(start, Some(new));
            }
            self.expect(b':')?;
            self.value(&place, depth + 1)?;
            if self.skip(b'}') {
                return Ok(());
            }
            self.expect(b',')?;
        }
    }

    /// Reads a string: where it starts, and what it says.
    fn string(&mut self) -> Result<(usize, Cow<'a, str>), Failure> {
        let start = self.at;
        let bytes = self.text.as_bytes();
        let mut escaped = false;
        let mut at = start + 1;
        loop {
            match bytes.get(at) {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    at += 2;
                }
                Some(_) => at += 1,
                None => return Err(self.failure()),
            }
        }
        self.at = at + 1;
        let text = if escaped {
            let read = serde_json::from_str(&self.text[start..self.at]);
            Cow::Owned(read.map_err(|_| self.failure())?)
        } else {
            Cow::Borrowed(&self.text[start + 1..at])
        };
        Ok((start, text))
    }

    /// Puts a string in place of what stands from `start` to where the text has been read.
    fn replace(&mut self, start: usize, new: Option<String>) {
        if let Some(new) = new {
            self.out.push_str(&self.text[self.copied..start]);
            self.out.push_str(&serde_json::Value::String(new).to_string());
            self.copied = self.at;
        }
    }

    /// The bytes from here on for which `is_in` holds: only ASCII.
    fn run(&mut self, is_in: impl Fn(u8) -> bool) -> &'a str {
        let rest = &self.text[self.at..];
        let length = rest.bytes().take_while(|c| is_in(*c)).count();
        self.at += length;
        &rest[..length]
    }

    /// The next byte that is no blank.
    fn peek(&mut self) -> Option<u8> {
        self.run(|c| matches!(c, b' ' | b'\t' | b'\n' | b'\r'));
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip(&mut self, byte: u8) -> bool {
        let is_next = self.peek() == Some(byte);
        self.at += usize::from(is_next);
        is_next
    }

    fn expect(&mut self, byte: u8) -> Result<(), Failure> {
        if self.skip(byte) {
            Ok(())
        } else {
            Err(self.failure())
        }
    }

    fn failure(&self) -> Failure {
        Failure::new(
            "unexpected_json",
            format!("not what was expected at byte {}", self.at),
        )
    }
}

/// A key that is not among these: two keys of an object that become the same would lose a value.
fn unlike(key: String, keys: &[String]) -> String {
    if !keys.contains(&key) {
        return key;
    }
    (2..)
        .map(|number| format!("{key}_{number}"))
        .find(|numbered| !keys.contains(numbered))
        .unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upper(text: &str) -> Result<Option<String>, Failure> {
        let edit = &mut |part, _: &Place<'_>, text: &str| {
            let new = text.to_uppercase();
            (part == Part::Text && new != text).then_some(new)
        };
        Ok(walk(&Json::from_text(text), &Fields::default(), edit)?.map(Json::into_text))
    }

    #[test]
    fn what_is_not_replaced_stays_byte_for_byte() {
        let text = r#" { "z" : 1.50 , "a":[ 123456789012345678901234567890, "x\u0041", true,null ,-1e400, {}, [ ] ] } "#;
        let edited = text.replace(r#""x\u0041""#, r#""XA""#);
        assert_eq!(upper(text), Ok(Some(edited)));
    }

    #[test]
    fn nothing_is_made_where_nothing_is_replaced() {
        for text in [r#""X""#, "7", "{}", "[]", "null", r#"{"a": ["B", "\n"]}"#] {
            assert_eq!(upper(text), Ok(None), "{text}");
        }
    }

    #[test]
    fn replacements_are_escaped() {
        let edit = &mut |_, _: &Place<'_>, _: &str| Some("\"\\\n\u{1}ß".to_owned());
        let edited = walk(&Json::from_text(r#"["x"]"#), &Fields::default(), edit)
            .unwrap()
            .unwrap();
        assert_eq!(edited.value().unwrap(), serde_json::json!(["\"\\\n\u{1}ß"]));
    }

    #[test]
    fn numbers_and_keys_are_replaced_by_strings() {
        let edit = &mut |part, _: &Place<'_>, _: &str| (part != Part::Text).then(|| "*".to_owned());
        let json = Json::from_text(r#"{"a": 12, "b": {"c": 1.5, "d": "x"}, "e": [-3]}"#);
        let edited = walk(&json, &Fields::default(), edit).unwrap().unwrap();
        assert_eq!(
            edited.text(),
            r#"{"*": "*", "*_2": {"*": 1.5, "*_2": "x"}, "*_3": ["*"]}"#
        );
    }

    #[test]
    fn what_is_no_json_is_a_failure() {
        for text in [
            "",
            "{",
            "[",
            "[1",
            "[1,]",
            "[1 2]",
            "{1:2}",
            r#"{"a"}"#,
            r#"{"a":}"#,
            r#""a"#,
            r#""\"#,
            r#""\x""#,
            "1 2",
            "é",
            r#"["\ud800"]"#,
        ] {
            assert_eq!(upper(text).unwrap_err().code, "unexpected_json", "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_as_that_of_values() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(upper(&nested(DEPTH)), Ok(None));
        assert!(Json::from_text(nested(DEPTH)).value().is_ok());
        assert!(upper(&nested(DEPTH + 1)).is_err());
        assert!(Json::from_text(nested(DEPTH + 1)).value().is_err());
    }
}
