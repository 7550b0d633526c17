//! Texts that a guest writes, bounded before they are passed on.

/// The longest text for people that is passed on, in characters.
pub(super) const MAX_TEXT_CHARS: usize = 512;
/// The longest code of a failure, in bytes.
const MAX_CODE_BYTES: usize = 64;

/// A text of an extension, on one line and cut to 512 characters.
pub(in crate::extensions) fn one_line(text: &str) -> Box<str> {
    text.chars()
        .take(MAX_TEXT_CHARS)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

/// Whether a text can be the code of a failure: at most 64 of `a` to `z`, `0` to `9` and `_`, a letter first.
pub(in crate::extensions) fn is_code(code: &str) -> bool {
    is_name(code, MAX_CODE_BYTES)
}

/// Whether a text is a name of at most so many bytes: `a` to `z`, `0` to `9` and `_`, a letter first.
pub(super) fn is_name(text: &str, max_bytes: usize) -> bool {
    text.len() <= max_bytes
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_')
}
