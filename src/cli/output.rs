//! What every command prints, and how it ends.

use std::io::Write;

/// Exit code for a configuration or input with mistakes (`EX_USAGE` of sysexits).
pub const EXIT_USAGE: u8 = 64;

/// Prints a line to standard output; a closed pipe is not worth an error.
pub(super) fn print(text: &str) {
    let _closed_pipe = writeln!(std::io::stdout(), "{text}");
}

/// Prints a text that ends its lines itself.
pub(super) fn print_text(text: &str) {
    let _closed_pipe = std::io::stdout().write_all(text.as_bytes());
}

/// Prints a line to standard error.
pub(super) fn print_err(text: &str) {
    let _closed_pipe = writeln!(std::io::stderr(), "{text}");
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
    fn nouns_agree_with_their_counts() {
        assert_eq!(counted(1, "policy", "policies"), "1 policy");
        assert_eq!(counted(0, "policy", "policies"), "0 policies");
        assert_eq!(errors_and_warnings(1, 2), "1 error, 2 warnings");
    }
}
