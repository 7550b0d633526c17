//! Integers beyond 64 bits, exactly as they were written.
//!
//! `serde_json` reads them as floats, so that neighbours become equal. Its feature `arbitrary_precision` keeps every
//! number as a text of its own, which costs each number of each request an allocation and changes what is equal in the
//! whole program. Here only such an integer is kept as a text, in an object with one key that nothing else uses, and
//! only a body that may hold one is read a second time. What leaves the program is written with [`written`] again.
//!
//! An object with that key in a body is taken for the integer that it names, which is no other than its sender could
//! have written itself.

use std::cmp::Ordering;

use serde::{Serialize, Serializer, de::DeserializeOwned, ser::Error as _};
use serde_json::{Map, Number, Value, value::RawValue};

/// The key of the object that stands for an integer: a character for private use, and what it is.
const KEY: &str = "\u{f8ff}integer";

/// Digits of the shortest integers that do not fit.
const DIGITS: usize = 19;

/// Whether a text may hold an integer that does not fit; most texts without one are told by a few of their bytes.
pub fn may_hold(text: &[u8]) -> bool {
    // A run of so many digits covers one of these places.
    let places = (DIGITS - 1..text.len()).step_by(DIGITS);
    places
        .filter(|&at| text[at].is_ascii_digit())
        .any(|at| run(text, at) >= DIGITS)
}

fn run(text: &[u8], at: usize) -> usize {
    let digits = |bytes: &mut dyn Iterator<Item = &u8>| bytes.take_while(|b| b.is_ascii_digit()).count();
    digits(&mut text[..at].iter().rev()) + digits(&mut text[at..].iter())
}

/// Reads JSON, integers of any length included.
///
/// # Errors
/// What `serde_json` refuses: with that, integers of more than 308 digits.
pub fn from_slice<T: DeserializeOwned>(text: &[u8]) -> serde_json::Result<T> {
    let parsed = serde_json::from_slice(text)?;
    match std::str::from_utf8(text) {
        Ok(text) if may_hold(text.as_bytes()) => {
            // It may be large, and is not needed beside the other one.
            drop(parsed);
            serde_json::from_str(&marked(text))
        }
        _ => Ok(parsed),
    }
}

/// A valid text, with an object in the place of each integer that does not fit.
fn marked(text: &str) -> String {
    let mut marked = String::with_capacity(text.len() + 64);
    let mut rest = text;
    while let Some(at) = rest.find(['"', '-', '0', '1', '2', '3', '4', '5', '6', '7', '8', '9']) {
        let (before, found) = rest.split_at(at);
        marked.push_str(before);
        let end = if found.starts_with('"') {
            end_of_string(found)
        } else {
            let is_number = |c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.' | 'e' | 'E');
            found.find(|c| !is_number(c)).unwrap_or(found.len())
        };
        let (token, after) = found.split_at(end);
        if is_integer(token) && token.parse::<i64>().is_err() && token.parse::<u64>().is_err() {
            marked.push_str(&format!("{{\"{KEY}\":\"{token}\"}}"));
        } else {
            marked.push_str(token);
        }
        rest = after;
    }
    marked.push_str(rest);
    marked
}

fn end_of_string(text: &str) -> usize {
    let mut escaped = false;
    for (at, byte) in text.bytes().enumerate().skip(1) {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The integer that a value stands for, as it was written.
pub fn integer(value: &Value) -> Option<&str> {
    let object = value.as_object().filter(|object| object.len() == 1)?;
    object.get(KEY)?.as_str().filter(|text| is_integer(text))
}

/// Any number as a float.
pub fn as_f64(value: &Value) -> Option<f64> {
    value.as_f64().or_else(|| integer(value)?.parse().ok())
}

/// JSON text of values as it leaves the program.
pub fn written(text: String) -> String {
    let start = format!("{{\"{KEY}\":\"");
    if !text.contains(&start) {
        return text;
    }
    let mut written = String::with_capacity(text.len());
    let mut rest = &*text;
    // Quotes in strings are escaped, so this is never part of one.
    while let Some((before, found)) = rest.split_once(&*start) {
        written.push_str(before);
        match found.split_once("\"}") {
            Some((integer, after)) if is_integer(integer) => {
                written.push_str(integer);
                rest = after;
            }
            _ => {
                written.push_str(&start);
                rest = found;
            }
        }
    }
    written.push_str(rest);
    written
}

/// Puts floats into the place of integers that do not fit, as where nothing compares or repeats them.
pub fn rounded(value: &mut Value) {
    if let Some(float) = integer(value).and_then(|text| Number::from_f64(text.parse().ok()?)) {
        *value = Value::Number(float);
        return;
    }
    match value {
        Value::Array(list) => list.iter_mut().for_each(rounded),
        Value::Object(object) => object.values_mut().for_each(rounded),
        _ => {}
    }
}

/// A value that leaves the program with the document that it is part of.
#[derive(Debug, Clone, PartialEq)]
pub struct Written(pub Value);

impl Serialize for Written {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw = RawValue::from_string(written(self.0.to_string())).map_err(S::Error::custom)?;
        raw.serialize(serializer)
    }
}

/// The order of two numbers; `None` where one of the values is none.
pub fn compare(left: &Value, right: &Value) -> Option<Ordering> {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => compare_numbers(left, right),
        _ => match (integer(left), integer(right)) {
            (Some(left), Some(right)) => Some(compare_integers(left, right)),
            (Some(left), None) => compare_with_number(left, right.as_number()?),
            (None, Some(right)) => compare_with_number(right, left.as_number()?).map(Ordering::reverse),
            (None, None) => None,
        },
    }
}

/// Integers are compared as such: above 2^53 a float no longer tells neighbours apart.
fn compare_numbers(left: &Number, right: &Number) -> Option<Ordering> {
    let whole = |n: &Number| n.as_i64().map(i128::from).or(n.as_u64().map(i128::from));
    match (whole(left), whole(right)) {
        (Some(left), Some(right)) => Some(left.cmp(&right)),
        (Some(left), None) => compare_with_float(left, right.as_f64()?),
        (None, Some(right)) => compare_with_float(right, left.as_f64()?).map(Ordering::reverse),
        (None, None) => left.as_f64()?.partial_cmp(&right.as_f64()?),
    }
}

fn compare_with_float(integer: i128, float: f64) -> Option<Ordering> {
    // Saturates far beyond every integer here.
    #[expect(clippy::cast_possible_truncation, reason = "the whole part is what is wanted")]
    let whole = float.trunc() as i128;
    match integer.cmp(&whole) {
        Ordering::Equal => 0.0.partial_cmp(&float.fract()),
        order => Some(order),
    }
}

fn compare_with_number(integer: &str, number: &Number) -> Option<Ordering> {
    if number.is_f64() {
        // A float of this size is a whole number, and is written out as what it is exactly.
        let float = number.as_f64()?;
        return Some(compare_integers(integer, &format!("{:.0}", float.trunc())));
    }
    Some(compare_integers(integer, &number.to_string()))
}

/// Integers as JSON writes them: without leading zeros.
fn compare_integers(left: &str, right: &str) -> Ordering {
    let size = |text: &str| (text.len(), text.to_owned());
    match (left.strip_prefix('-'), right.strip_prefix('-')) {
        (None, None) => size(left).cmp(&size(right)),
        (Some(left), Some(right)) => size(right).cmp(&size(left)),
        (None, Some(_)) => Ordering::Greater,
        (Some(_), None) => Ordering::Less,
    }
}

/// Rounds all but one entry of the items of some lists.
pub(super) fn round_but(document: &mut Map<String, Value>, lists: &[&str], kept: &str) {
    for (key, value) in document {
        let items = value.as_array_mut().filter(|_| lists.contains(&key.as_str()));
        let Some(items) = items else {
            rounded(value);
            continue;
        };
        for item in items {
            let entry = item.as_object_mut().and_then(|item| item.remove(kept));
            rounded(item);
            if let (Some(entry), Some(item)) = (entry, item.as_object_mut()) {
                item.insert(kept.to_owned(), entry);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str) -> Value {
        from_slice(text.as_bytes()).unwrap()
    }

    #[test]
    fn integers_are_written_as_they_were_read() {
        for text in [
            "18446744073709551616",
            "-9223372036854775809",
            r#"{"a":[18446744073709551617,{"b":-18446744073709551618}],"c":"x"}"#,
            r#"[18446744073709551615,-9223372036854775808,0,1.5,1e300]"#,
            r#"{"n":18446744073709551619,"quote":"\" 18446744073709551617 \\","text":"18446744073709551617"}"#,
            r#"["{\"\uf8ffinteger\":\"1\"}",99999999999999999999999999999999999999999999]"#,
        ] {
            let wanted = text.replace("\\uf8ff", "\u{f8ff}").replace("1e300", "1e+300");
            assert_eq!(written(read(text).to_string()), wanted);
        }
        // Floats stay floats, and what is no JSON stays none.
        assert_eq!(
            read("18446744073709551616.0"),
            json!(18_446_744_073_709_551_616.0)
        );
        assert_eq!(read("184467440737095516160e-1"), json!(1.8446744073709552e19));
        for wrong in [
            "018446744073709551616",
            "-",
            "1844674407370955161x",
            &"9".repeat(400),
        ] {
            assert!(from_slice::<Value>(wrong.as_bytes()).is_err(), "{wrong}");
        }
        assert_eq!(
            written(format!("{{\"{KEY}\":\"x\"}}")),
            format!("{{\"{KEY}\":\"x\"}}")
        );
    }

    #[test]
    fn a_text_with_a_long_run_of_digits_is_noticed_wherever_it_lies() {
        for before in 0..60 {
            for length in 1..45 {
                let text = format!(
                    "{}{}{}",
                    "x".repeat(before),
                    "7".repeat(length),
                    "y".repeat(before % 7)
                );
                assert_eq!(may_hold(text.as_bytes()), length >= DIGITS, "{text}");
            }
        }
    }

    #[test]
    fn numbers_have_their_exact_order() {
        let ascending = [
            "-1e300",
            "-36893488147419103233",
            "-36893488147419103232",
            "-18446744073709551616",
            "-9223372036854775809",
            "-9223372036854775808",
            "-1",
            "-0.5",
            "0",
            "0.5",
            "9007199254740992",
            "9007199254740993",
            "9007199254740994.0",
            "18446744073709551615",
            "18446744073709551616.0",
            "18446744073709551617",
            "18446744073709551618",
            "100000000000000000000000",
            "1e300",
        ];
        for (i, left) in ascending.iter().enumerate() {
            for (j, right) in ascending.iter().enumerate() {
                let (left, right) = (read(left), read(right));
                assert_eq!(compare(&left, &right), Some(i.cmp(&j)), "{left} {right}");
            }
        }
        let equal = compare(
            &read("36893488147419103232"),
            &json!(36_893_488_147_419_103_232.0),
        );
        assert_eq!(equal, Some(Ordering::Equal));
        assert_eq!(
            compare(&read("18446744073709551617"), &json!("18446744073709551617")),
            None
        );
    }

    #[test]
    fn only_conditions_keep_what_does_not_fit() {
        let mut document: Map<String, Value> = from_slice(
            br#"{"metadata":{"n":18446744073709551617},"fallbacks":[{"when":{"n":18446744073709551617},"retry":18446744073709551617}]}"#,
        )
        .unwrap();
        round_but(&mut document, &["fallbacks"], "when");
        let rule = &document["fallbacks"][0];
        assert_eq!(integer(&rule["when"]["n"]), Some("18446744073709551617"));
        assert!(rule["retry"].is_f64() && document["metadata"]["n"].is_f64());
    }
}
