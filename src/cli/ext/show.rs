//! How the commands for extensions print: names at the left, what is known about them at the right.

use std::{fmt, time::Duration};

/// Lines of a name and a value each.
#[derive(Debug, Default)]
pub(super) struct Table(Vec<(&'static str, String)>);

impl Table {
    /// What is printed may be the work of a stranger: it stays one line, and says nothing to the terminal.
    pub(super) fn row(&mut self, name: &'static str, value: impl Into<String>) {
        self.0.push((name, escaped(&value.into())));
    }

    /// One name, and a line for each value.
    pub(super) fn rows(&mut self, name: &'static str, values: &[String]) {
        if values.is_empty() {
            self.row(name, "none");
        }
        for (index, value) in values.iter().enumerate() {
            self.row(if index == 0 { name } else { "" }, value.as_str());
        }
    }
}

/// A text with its control characters, and those that change the direction of writing, written out.
pub(super) fn escaped(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for c in text.chars() {
        let is_direction =
            matches!(c, '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
        if c.is_control() || is_direction {
            safe.extend(c.escape_default());
        } else {
            safe.push(c);
        }
    }
    safe
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.0.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
        for (index, (name, value)) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{name:width$}  {value}")?;
        }
        Ok(())
    }
}

/// `1.6 MiB (1,677,722 bytes)`; small sizes in bytes alone.
pub(super) fn bytes(count: u64) -> String {
    let exact = format!("{} bytes", thousands(count));
    match count {
        0..1_024 => exact,
        1_024..1_048_576 => format!("{:.1} KiB ({exact})", count as f64 / 1_024.0),
        _ => format!("{:.1} MiB ({exact})", count as f64 / 1_048_576.0),
    }
}

/// `1,234,567`.
pub(super) fn thousands(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `7.4 µs`, `21.0 ms`, `1.42 s`.
pub(super) fn time(took: Duration) -> String {
    let seconds = took.as_secs_f64();
    if seconds < 1e-3 {
        format!("{:.1} µs", seconds * 1e6)
    } else if seconds < 1.0 {
        format!("{:.1} ms", seconds * 1e3)
    } else {
        format!("{seconds:.2} s")
    }
}

/// `clock, random`, or `none`.
pub(super) fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<&str> = names.collect();
    if names.is_empty() {
        "none".to_owned()
    } else {
        names.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(thousands(0), "0");
        assert_eq!(thousands(999), "999");
        assert_eq!(thousands(1_234_567), "1,234,567");
        assert_eq!(bytes(900), "900 bytes");
        assert_eq!(bytes(18_432), "18.0 KiB (18,432 bytes)");
        assert_eq!(bytes(1_677_722), "1.6 MiB (1,677,722 bytes)");
        assert_eq!(time(Duration::from_nanos(7_400)), "7.4 µs");
        assert_eq!(time(Duration::from_millis(21)), "21.0 ms");
        assert_eq!(time(Duration::from_millis(1_420)), "1.42 s");
    }

    #[test]
    fn a_table_says_nothing_to_the_terminal() {
        let mut table = Table::default();
        table.row("kind", "\u{1b}[2Jx\r\nsize  1 \u{202e}b\u{9b}31m\u{e4}");
        assert_eq!(
            table.to_string(),
            "kind  \\u{1b}[2Jx\\r\\nsize  1 \\u{202e}b\\u{9b}31m\u{e4}"
        );
    }

    #[test]
    fn a_table_lines_up() {
        let mut table = Table::default();
        table.row("size", "1");
        table.rows("imports", &["a".to_owned(), "b".to_owned()]);
        table.rows("exports", &[]);
        assert_eq!(
            table.to_string(),
            "size     1\nimports  a\n         b\nexports  none"
        );
    }
}
