//! JSON of a guest, looked at as text. It is kept as text where nothing has to be looked up in it: the values of a text of tiny
//! ones take a hundred times its memory, and make the thread that serves the request wait until they are built.

use serde::de::IgnoredAny;
use serde_json::{Map, Value};

/// How deep values may nest: as deep as others read them.
const MAX_DEPTH: usize = 127;
/// Values that are built of one text: the entries of objects and arrays.
pub(super) const MAX_VALUES: usize = 10_000;

/// What is wrong with a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wrong {
    /// It is not JSON, not an object where one is due, or nests too deep.
    Json,
    /// It holds more values than are built.
    TooMany,
}

/// Checks that a text is JSON.
pub(super) fn check(text: &str) -> Result<(), Wrong> {
    is_within(text, usize::MAX)?;
    serde_json::from_str::<IgnoredAny>(text)
        .map(drop)
        .map_err(|_| Wrong::Json)
}

/// Reads a small object.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, Wrong> {
    if !is_within(text, MAX_VALUES)? {
        return Err(Wrong::TooMany);
    }
    serde_json::from_str(text).map_err(|_| Wrong::Json)
}

/// Whether a text, if it is JSON, holds no more values than so many.
fn is_within(text: &str, max_values: usize) -> Result<bool, Wrong> {
    let (mut depth, mut values) = (0_usize, 1_usize);
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => skip_string(&mut bytes),
            b'[' | b'{' => {
                depth += 1;
                values += 1;
            }
            b']' | b'}' => depth = depth.saturating_sub(1),
            b',' => values += 1,
            _ => {}
        }
        if depth > MAX_DEPTH {
            return Err(Wrong::Json);
        }
        if values > max_values {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Past the end of a string.
fn skip_string(bytes: &mut std::str::Bytes<'_>) {
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return,
            b'\\' => {
                bytes.next();
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_json_is_what_the_parser_says() {
        for text in [
            "{}",
            "[]",
            "1",
            "\"\\\"[[[\"",
            "[1,{\"a\":[null,true]}]",
            " 1e999 ",
        ] {
            assert_eq!(check(text), Ok(()), "{text}");
        }
        for text in ["", "{", "[1,]", "\"\\\"", "nul", "[1] 2", "{1:2}", "\"\u{1}\""] {
            assert_eq!(check(text), Err(Wrong::Json), "{text}");
        }
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(check(&nested(MAX_DEPTH)), Ok(()));
        assert_eq!(check(&nested(MAX_DEPTH + 1)), Err(Wrong::Json));
        assert_eq!(check(&nested(100_000)), Err(Wrong::Json));
        let deep = format!("{{\"a\":{}}}", nested(MAX_DEPTH - 1));
        assert!(object(&deep).is_ok());
    }

    #[test]
    fn only_so_many_values_are_built() {
        let many = |count: usize| format!("{{\"x\":[{}0]}}", "0,".repeat(count - 1));
        assert!(object(&many(MAX_VALUES - 3)).is_ok());
        assert_eq!(object(&many(MAX_VALUES)), Err(Wrong::TooMany));
        let empty = format!("{{\"x\":[{}[]]}}", "[],".repeat(MAX_VALUES / 2));
        assert_eq!(object(&empty), Err(Wrong::TooMany));
        // Text is text: nothing is built of it.
        assert_eq!(check(&many(500_000)), Ok(()));
        let commas = format!("{{\"x\":\"{}\"}}", ",[{".repeat(100_000));
        assert!(object(&commas).is_ok());
    }
}
