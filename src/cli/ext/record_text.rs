//! Changes a record as its author wrote it: one member, and nothing else of the text.

use serde_json::{Map, Value};

use crate::policy::locate;

/// The record with this text as a member: in place of the one that it has, or else behind another one. `None` for what is no
/// record, or has neither of them as a text. The text must need no escapes.
pub(super) fn with_member(text: &str, name: &str, value: &str, behind: &str) -> Option<String> {
    let record: Map<String, Value> = serde_json::from_str(text).ok()?;
    let offset = |path: &str| {
        let at = locate(text, path);
        let line: usize = text.split_inclusive('\n').take(at.line - 1).map(str::len).sum();
        let rest = text.get(line..)?;
        let column = rest.char_indices().nth(at.column - 1)?.0;
        Some(line + column)
    };
    match record.get(name) {
        Some(Value::String(old)) => {
            let old = format!("\"{old}\"");
            let at = offset(&format!("$.{name}"))?;
            let rest = text.get(at..)?.strip_prefix(&old)?;
            Some(format!("{}\"{value}\"{rest}", text.get(..at)?))
        }
        Some(_) => None,
        None => {
            let before = format!("\"{}\"", record.get(behind)?.as_str()?);
            let at = offset(&format!("$.{behind}"))?;
            let rest = text.get(at..)?.strip_prefix(&before)?;
            Some(format!(
                "{}{before},\n  \"{name}\": \"{value}\"{rest}",
                text.get(..at)?
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(text: &str, digest: &str) -> Option<String> {
        with_member(text, "sha256", digest, "module")
    }

    #[test]
    fn a_digest_is_written_into_a_record_and_nothing_else() {
        let record = "{\n  \"id\": \"é\",  \"module\": \"file:x.wasm\",\n  \"type\": \"pre\"\n}\n";
        let first = with(record, "abc").unwrap();
        assert_eq!(
            first,
            "{\n  \"id\": \"é\",  \"module\": \"file:x.wasm\",\n  \"sha256\": \"abc\",\n  \"type\": \"pre\"\n}\n"
        );
        assert_eq!(with(&first, "def"), Some(first.replace("abc", "def")));
        assert_eq!(with(&first, "abc"), Some(first));
        for odd in [
            "",
            "[]",
            "{}",
            r#"{"module": 1}"#,
            r#"{"module": "x", "sha256": 1}"#,
        ] {
            assert_eq!(with(odd, "abc"), None, "{odd}");
        }
    }
}
