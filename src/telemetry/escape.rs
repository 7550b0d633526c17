//! JSON lines that stay single lines in every viewer.
//!
//! JSON escapes the ASCII control characters and not the others: the line separators of Unicode, which many
//! viewers break lines at, and the control characters from U+007F to U+009F, one of which begins a terminal's
//! escape sequences. Inside a JSON text they can only be in a string, where an escape means the same.

/// The line with such characters escaped, where it has any.
pub(super) fn escaped(line: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(line).ok()?;
    text.contains(is_hidden).then(|| escape(text))
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
