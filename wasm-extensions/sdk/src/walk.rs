//! Going through JSON text without building values of it: what is not replaced stays byte for byte as
//! it was, numbers, order and blanks included.

use std::{borrow::Cow, collections::BTreeMap, fmt::Write as _};

use crate::{
    Failure, Json,
    fields::{Fields, Part, Place, Step},
};

/// How deep values may nest: as deep as [`Json::value`] reads.
const DEPTH: usize = 127;

/// Writes the replacement of a part into an empty text, and says whether it did.
type Edit<'a> = dyn FnMut(Part, &Place<'_>, &str, &mut String) -> bool + 'a;

/// Shows each part that `fields` means to `edit`. The JSON with all replacements, or nothing where
/// there was none.
///
/// Whatever has to be kept meanwhile is as large as the result, and what is used for one part is used
/// again for the next: the allocator of a component frees nothing.
pub(crate) fn walk(json: &Json, fields: &Fields, edit: &mut Edit<'_>) -> Result<Option<Json>, Failure> {
    let mut walk = Walk {
        text: json.text(),
        at: 0,
        copied: 0,
        out: String::new(),
        new: String::new(),
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
    /// The replacement of the last part that was shown.
    new: String,
    fields: &'a Fields,
    edit: &'a mut Edit<'a>,
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
                if self.fields.mean(place) && self.edited(Part::Text, place, &text) {
                    self.replace(start);
                }
                Ok(())
            }
            Some(b'-' | b'0'..=b'9') => {
                let start = self.at;
                let number = self.run(|c| matches!(c, b'0'..=b'9' | b'-' | b'+' | b'.' | b'e' | b'E'));
                let is_integer = number.bytes().all(|c| c == b'-' || c.is_ascii_digit());
                if is_integer && self.fields.mean(place) && self.edited(Part::Integer, place, number) {
                    self.replace(start);
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
        let mut new_keys = BTreeMap::new();
        loop {
            if self.peek() != Some(b'"') {
                return Err(self.failure());
            }
            let (start, key) = self.string()?;
            let place = place.at(Step::Key(&key));
            if self.fields.mean(&place) && self.edited(Part::Key, &place, &key) {
                distinguish(&mut self.new, &mut new_keys);
                self.replace(start);
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

    /// Shows a part. Whether `new` holds its replacement.
    fn edited(&mut self, part: Part, place: &Place<'_>, text: &str) -> bool {
        self.new.clear();
        (self.edit)(part, place, text, &mut self.new)
    }

    /// Puts the replacement in place of what stands from `start` to where the text has been read.
    fn replace(&mut self, start: usize) {
        if self.copied == 0 {
            self.out.reserve(self.text.len() + self.new.len());
        }
        self.out.push_str(&self.text[self.copied..start]);
        write_string(&mut self.out, &self.new);
        self.copied = self.at;
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

/// Makes a key unlike those before it: two keys of an object that become the same would lose a value. With each of these is
/// the number with which the next key of the same name is tried.
fn distinguish(key: &mut String, keys: &mut BTreeMap<String, usize>) {
    if let Some(next) = keys.get(key) {
        let (mut number, length) = (*next, key.len());
        loop {
            key.truncate(length);
            // Writing to a string cannot fail.
            let _ = write!(key, "_{number}");
            number += 1;
            if !keys.contains_key(key) {
                break;
            }
        }
        if let Some(next) = keys.get_mut(&key[..length]) {
            *next = number;
        }
    }
    keys.insert(key.clone(), 2);
}

/// Writes a string as JSON has it, without a copy of it.
fn write_string(out: &mut String, text: &str) {
    out.push('"');
    let mut copied = 0;
    for (at, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            8 => "\\b",
            12 => "\\f",
            0..=0x1f => "",
            _ => continue,
        };
        out.push_str(&text[copied..at]);
        out.push_str(escape);
        if escape.is_empty() {
            // Writing to a string cannot fail.
            let _ = write!(out, "\\u{byte:04x}");
        }
        copied = at + 1;
    }
    out.push_str(&text[copied..]);
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn upper(text: &str) -> Result<Option<String>, Failure> {
        let edit = &mut |part, _: &Place<'_>, text: &str, new: &mut String| {
            new.push_str(&text.to_uppercase());
            part == Part::Text && new != text
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
        let edit = &mut |_, _: &Place<'_>, _: &str, new: &mut String| {
            new.push_str("\"\\\n\u{1}ß");
            true
        };
        let edited = walk(&Json::from_text(r#"["x"]"#), &Fields::default(), edit)
            .unwrap()
            .unwrap();
        assert_eq!(edited.value().unwrap(), serde_json::json!(["\"\\\n\u{1}ß"]));
    }

    #[test]
    fn numbers_and_keys_are_replaced_by_strings() {
        let edit = &mut |part, _: &Place<'_>, _: &str, new: &mut String| {
            new.push('*');
            part != Part::Text
        };
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

    #[test]
    fn strings_are_written_as_serde_writes_them() {
        let all: String = (0..0x250).filter_map(char::from_u32).collect();
        for text in [all.as_str(), "", "\u{7f}\u{80}\u{2028}", "a\\b\"c/"] {
            let mut written = String::new();
            write_string(&mut written, text);
            assert_eq!(written, serde_json::to_string(text).unwrap());
        }
    }

    #[test]
    fn keys_that_become_the_same_are_told_apart_in_time_that_grows_with_their_number() {
        // Were each compared with all before it, or each number tried from the start, this would take hours.
        let many = 100_000;
        let mut keys: Vec<String> = (0..many).map(|number| format!("\"k{number}\":0")).collect();
        keys.push("\"_2\":0".into());
        let json = Json::from_text(format!("{{{}}}", keys.join(",")));
        let edit = &mut |part, _: &Place<'_>, key: &str, new: &mut String| {
            new.push_str(if key.starts_with('k') { "*" } else { "*_2" });
            part == Part::Key
        };
        let edited = walk(&json, &Fields::default(), edit).unwrap().unwrap();
        let edited: std::collections::BTreeMap<String, u8> = edited.read().unwrap();
        assert_eq!(edited.len(), many + 1);
        assert!(edited.contains_key("*") && edited.contains_key(&format!("*_{many}")));
        assert!(edited.contains_key("*_2_2"));
    }
}
