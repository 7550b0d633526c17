//! Paths into a JSON document, as problems name their places: `$.providers[1].weight`, `$["odd key"]`.

use std::fmt;

/// A place in a document, linked through the stack: a path costs nothing until it is written.
#[derive(Debug, Clone, Copy)]
pub(super) enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Index(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            At::Root => f.write_str("$"),
            At::Key(parent, key) => write!(f, "{parent}{}", Step(key)),
            At::Index(parent, index) => write!(f, "{parent}[{index}]"),
        }
    }
}

/// The path of the member `key` of the object at `path`.
pub fn member(path: &str, key: &str) -> String {
    format!("{path}{}", Step(key))
}

/// The path that a JSON Pointer (RFC 6901) means below the value at `path`: `/allow/0` below `$.config` is
/// `$.config.allow[0]`. A segment of digits counts as an index.
pub fn below(path: &str, pointer: &str) -> String {
    let mut below = path.to_owned();
    for segment in pointer.split('/').skip(1) {
        let segment = segment.replace("~1", "/").replace("~0", "~");
        if !segment.is_empty() && segment.bytes().all(|b| b.is_ascii_digit()) {
            below.push_str(&format!("[{segment}]"));
        } else {
            below.push_str(&Step(&segment).to_string());
        }
    }
    below
}

/// Characters of a key that a path shows. A hundred problems below a key of half a megabyte would be fifty megabytes.
const LONGEST_KEY: usize = 255;

/// A key as a path writes it: after a dot, or in brackets and quotes where it could be misread.
struct Step<'a>(&'a str);

impl fmt::Display for Step<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let key = self.0;
        if let Some((end, _)) = key.char_indices().nth(LONGEST_KEY) {
            return write!(f, "[{:?}…]", &key[..end]);
        }
        let is_plain = !key.is_empty() && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
        if is_plain {
            write!(f, ".{key}")
        } else {
            write!(f, "[{key:?}]")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_become_paths() {
        for (pointer, path) in [
            ("", "$.config"),
            ("/kinds", "$.config.kinds"),
            ("/kinds/0", "$.config.kinds[0]"),
            ("/a~1b/~0", "$.config[\"a/b\"][\"~\"]"),
            ("/a-b", "$.config[\"a-b\"]"),
            ("no pointer", "$.config"),
        ] {
            assert_eq!(below("$.config", pointer), path);
        }
    }

    #[test]
    fn members_are_quoted_where_they_could_be_misread() {
        assert_eq!(member("$.limits", "output_bytes"), "$.limits.output_bytes");
        assert_eq!(member("$", "a.b"), "$[\"a.b\"]");
        assert_eq!(member("$", ""), "$[\"\"]");
        let long = "é".repeat(LONGEST_KEY);
        assert_eq!(member("$", &long), format!("$[\"{long}\"]"));
        assert_eq!(member("$", &format!("{long}x")), format!("$[\"{long}\"…]"));
    }
}
