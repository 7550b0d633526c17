//! What every command prints, and how it ends.

use std::{borrow::Cow, fmt::Write as _, io::Write};

/// Exit code for a configuration or input with mistakes (`EX_USAGE` of sysexits).
pub const EXIT_USAGE: u8 = 64;

/// Prints a line to standard output; a closed pipe is not worth an error.
pub(super) fn print(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout(), "{}", harmless(text));
}

/// Prints a text that ends its lines itself.
pub(super) fn print_text(text: &str) {
    let _closed_pipe = std::io::stdout().write_all(text.as_bytes());
}

/// Prints a line to standard error.
pub(super) fn print_err(text: &str) {
    let _closed_pipe = writeln!(std::io::stderr(), "{}", harmless(text));
}

/// A text that says nothing to the terminal but which colour to write in: much of what is printed is the work of others.
/// Control characters, and those that change the direction of writing, are written out as JSON has them, so that JSON stays
/// what it is.
fn harmless(text: &str) -> Cow<'_, str> {
    let is_harmful = |c: char| {
        c.is_control() && c != '\n' && c != '\t'
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if !text.contains(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for (at, c) in text.char_indices() {
        if is_harmful(c) && !is_colour(&text[at..]) {
            // All of them are below 2^16.
            let _infallible = write!(safe, "\\u{:04x}", u32::from(c));
        } else {
            safe.push(c);
        }
    }
    Cow::Owned(safe)
}

/// Whether a text begins with a change of the colour.
fn is_colour(text: &str) -> bool {
    text.strip_prefix("\u{1b}[").is_some_and(|rest| {
        let parameters = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == ';');
        parameters.starts_with('m')
    })
}

/// A count with its noun: `1 policy`, `0 policies`.
pub(super) fn counted(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// `1 error, 2 warnings`.
pub(super) fn errors_and_warnings(errors: usize, warnings: usize) -> String {
    let (errors, warnings) = (
        counted(errors, "error", "errors"),
        counted(warnings, "warning", "warnings"),
    );
    format!("{errors}, {warnings}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_is_told_nothing_but_colours() {
        assert!(matches!(harmless("a\n\tb ä 😀"), Cow::Borrowed(_)));
        assert_eq!(harmless("\u{1b}[31mred\u{1b}[0m"), "\u{1b}[31mred\u{1b}[0m");
        assert_eq!(
            harmless("\u{1b}[2J\u{1b}]0;t\u{7}\r\u{9b}1m\u{202e}"),
            "\\u001b[2J\\u001b]0;t\\u0007\\u000d\\u009b1m\\u202e"
        );
        let json = serde_json::json!({"a": "\u{9b}\u{202e}"});
        let printed = harmless(&json.to_string()).into_owned();
        assert_eq!(serde_json::from_str::<serde_json::Value>(&printed).unwrap(), json);
    }

    #[test]
    fn nouns_agree_with_their_counts() {
        assert_eq!(counted(1, "policy", "policies"), "1 policy");
        assert_eq!(counted(0, "policy", "policies"), "0 policies");
        assert_eq!(errors_and_warnings(1, 2), "1 error, 2 warnings");
    }
}
