//! JSON lines that stay single lines in every viewer.
//!
//! JSON escapes the ASCII control characters and not the others: the line separators of Unicode, which many
//! viewers break lines at, and the control characters from U+007F to U+009F, one of which begins a terminal's
//! escape sequences. Inside a JSON text they can only be in a string, where an escape means the same.

use std::io;

use tracing_subscriber::fmt::MakeWriter;

/// Standard error, with such characters escaped.
#[derive(Debug, Clone, Copy)]
pub(super) struct EscapedStderr;

impl<'a> MakeWriter<'a> for EscapedStderr {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

impl io::Write for EscapedStderr {
    /// Writes all of it: a line comes in one piece and must go out in one.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) if text.contains(is_hidden) => io::stderr().write_all(escape(text).as_bytes())?,
            _ => io::stderr().write_all(line)?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

fn is_hidden(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}')
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_hidden(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hidden_characters_are_escaped_and_mean_the_same() {
        let text = "a\u{7f}\u{85}\u{9b}31m\u{2028}\u{2029}\u{a0}é\u{200b}";
        let line = serde_json::to_string(text).unwrap();
        let escaped = escape(&line);
        assert_eq!(
            escaped,
            "\"a\\u007f\\u0085\\u009b31m\\u2028\\u2029\u{a0}é\u{200b}\""
        );
        assert_eq!(serde_json::from_str::<String>(&escaped).unwrap(), text);
        assert!(!"plain é\n".contains(is_hidden));
    }
}
