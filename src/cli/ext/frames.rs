//! Where a guest crashed, for people: names as its author wrote them, with their lines where there is debug information,
//! and without what a panic itself calls.

use rustc_demangle::demangle;

use super::source_lines::{Line, SourceLines};

/// Parts of the names of functions that a panic in Rust goes through on its way to the trap.
const PANIC: [&str; 4] = ["panic", "rust_begin_unwind", "rust_end_short_backtrace", "abort"];

/// The frames worth showing, the innermost first.
pub(super) fn shown(frames: &[String], offsets: &[Option<usize>], lines: &SourceLines<'_>) -> Vec<String> {
    let mut all = Vec::new();
    for (index, frame) in frames.iter().enumerate() {
        let found = match offsets.get(index) {
            Some(Some(offset)) => lines.at(*offset),
            _ => Vec::new(),
        };
        if found.is_empty() {
            all.push(plain(frame));
        }
        for Line { function, place } in found {
            let name = plain(function.as_deref().unwrap_or(frame));
            all.push(match place {
                Some(place) => format!("{name} at {place}"),
                None => name,
            });
        }
    }
    let is_panic = |frame: &&String| PANIC.iter().any(|part| frame.contains(part));
    let skipped = all.iter().take_while(is_panic).count();
    // Where all of them are a panic's, they are what there is.
    if skipped < all.len() {
        all.drain(..skipped);
    }
    all
}

/// `_ZN2my5guard17h…E` as `my::guard`; what is not mangled as it is.
fn plain(symbol: &str) -> String {
    // A component's text, which must not speak to the terminal.
    format!("{:#}", demangle(symbol)).replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without_lines(frames: &[String]) -> Vec<String> {
        shown(frames, &[], &SourceLines::default())
    }

    #[test]
    fn names_are_shown_as_they_were_written() {
        for (symbol, name) in [
            (
                "_ZN90_$LT$my_validator..MyValidator$u20$as$u20$beamline_extension_sdk..extension..Validator$GT$8validate17h6b863549ae86748cE",
                "<my_validator::MyValidator as beamline_extension_sdk::extension::Validator>::validate",
            ),
            ("_ZN2my5guard17h6b863549ae86748cE", "my::guard"),
            ("validate", "validate"),
            ("function 3", "function 3"),
            ("_ZN9x", "_ZN9x"),
            ("a\u{1b}[31m", "a [31m"),
        ] {
            assert_eq!(without_lines(&[symbol.to_owned()]), [name]);
        }
    }

    #[test]
    fn what_a_panic_calls_is_left_out() {
        let frames = [
            "__rust_start_panic",
            "_RNv3std9panicking",
            "rust_begin_unwind",
            "my_fault",
            "panicky",
        ]
        .map(String::from);
        assert_eq!(without_lines(&frames), ["my_fault", "panicky"]);
        assert_eq!(without_lines(&frames[..1]), frames[..1]);
    }
}
