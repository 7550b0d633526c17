//! The line and column of a problem's path in a text, for messages that point at it.

/// A place in a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Counted from 1.
    pub line: usize,
    /// Counted from 1, in characters.
    pub column: usize,
}

impl Position {
    fn at(text: &str, offset: usize) -> Self {
        let before = text.get(..offset).unwrap_or(text);
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            line: before.matches('\n').count() + 1,
            column: before.get(line_start..).unwrap_or_default().chars().count() + 1,
        }
    }
}

/// Finds the value at a path such as `$.providers[1].weight` or `$["odd key"]`; for a missing key, the
/// object that should have it. The text is JSON that was read before; for any other text, some place in it.
pub fn locate(text: &str, path: &str) -> Position {
    let mut scanner = Scanner {
        bytes: text.as_bytes(),
        at: 0,
    };
    scanner.space();
    let mut found = scanner.at;
    for segment in segments(path) {
        scanner.space();
        let inside = match segment {
            Segment::Key(key) => scanner.enter_key(&key),
            Segment::Index(index) => scanner.enter_index(index),
        };
        if !inside {
            break;
        }
        scanner.space();
        found = scanner.at;
    }
    Position::at(text, found)
}

enum Segment {
    Key(String),
    Index(usize),
}

/// The segments of a path.
fn segments(path: &str) -> Vec<Segment> {
    let mut segments = Vec::new();
    let mut rest = path.strip_prefix('$').unwrap_or(path);
    while !rest.is_empty() {
        if let Some(key) = rest.strip_prefix('.') {
            let end = key.find(['.', '[']).unwrap_or(key.len());
            segments.push(Segment::Key(key[..end].to_owned()));
            rest = &key[end..];
        } else if let Some(quoted) = rest.strip_prefix('[').filter(|rest| rest.starts_with('"')) {
            let mut scanner = Scanner {
                bytes: quoted.as_bytes(),
                at: 0,
            };
            scanner.skip_text();
            let end = scanner.at.min(quoted.len());
            // Written with Rust's escapes, which are those of JSON except `\u{…}`.
            let key = serde_json::from_str(&quoted[..end]).unwrap_or_else(|_| quoted[..end].to_owned());
            segments.push(Segment::Key(key));
            rest = quoted[end..].strip_prefix(']').unwrap_or_default();
        } else if let Some((index, after)) = rest.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            let Ok(index) = index.parse() else { break };
            segments.push(Segment::Index(index));
            rest = after;
        } else {
            break;
        }
    }
    segments
}

/// Walks over JSON without building values. It ends for any bytes.
struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn space(&mut self) {
        while self.peek().is_some_and(|b| b.is_ascii_whitespace()) {
            self.at += 1;
        }
    }

    fn skip_text(&mut self) {
        self.at += 1;
        while let Some(byte) = self.peek() {
            self.at += 1;
            match byte {
                b'\\' => self.at += 1,
                b'"' => return,
                _ => {}
            }
        }
    }

    /// Skips one value, without recursion.
    fn skip_value(&mut self) {
        let mut depth = 0_usize;
        loop {
            self.space();
            match self.peek() {
                None => return,
                Some(b'"') => self.skip_text(),
                Some(b'{' | b'[') => {
                    depth += 1;
                    self.at += 1;
                    continue;
                }
                Some(b'}' | b']') => {
                    if depth == 0 {
                        return;
                    }
                    depth -= 1;
                    self.at += 1;
                }
                Some(b',' | b':') if depth > 0 => {
                    self.at += 1;
                    continue;
                }
                Some(b',' | b':') => return,
                Some(_) => {
                    while self
                        .peek()
                        .is_some_and(|b| !matches!(b, b',' | b'}' | b']') && !b.is_ascii_whitespace())
                    {
                        self.at += 1;
                    }
                }
            }
            if depth == 0 {
                return;
            }
        }
    }

    /// Moves to the value of a key of the object that begins here; to the last one if the key is given twice.
    fn enter_key(&mut self, key: &str) -> bool {
        if self.peek() != Some(b'{') {
            return false;
        }
        let begin = self.at;
        let mut found = None;
        self.at += 1;
        loop {
            self.space();
            if self.peek() != Some(b'"') {
                break;
            }
            let name = self.at;
            self.skip_text();
            let text = self.bytes.get(name..self.at).unwrap_or_default();
            let is_key = serde_json::from_slice::<String>(text).is_ok_and(|text| text == key);
            self.space();
            self.at += 1;
            self.space();
            if is_key {
                found = Some(self.at);
            }
            self.skip_value();
            self.space();
            if self.peek() != Some(b',') {
                break;
            }
            self.at += 1;
        }
        self.at = found.unwrap_or(begin);
        found.is_some()
    }

    fn enter_index(&mut self, index: usize) -> bool {
        if self.peek() != Some(b'[') {
            return false;
        }
        let begin = self.at;
        self.at += 1;
        for _ in 0..index {
            self.skip_value();
            self.space();
            if self.peek() != Some(b',') {
                self.at = begin;
                return false;
            }
            self.at += 1;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_where_they_stand() {
        let text = "{\n  \"providers\": [\n    {\"name\": \"a\", \"weight\": 5},\n    {\"w\\u0065ight\": [1, {\"x\": \"]}\"}], \"é\": 1, \"odd key\": 2}\n  ],\n  \"a\": 1, \"a\": 2\n}";
        for (path, line, column) in [
            ("$", 1, 1),
            ("$.providers", 2, 16),
            ("$.providers[0].weight", 3, 29),
            ("$.providers[1].weight", 4, 21),
            ("$.providers[1].weight[1].x", 4, 31),
            ("$.providers[1][\"odd key\"]", 4, 58),
            ("$.providers[1].name", 4, 5),
            ("$.providers[7]", 2, 16),
            ("$.a", 6, 16),
            ("$.missing.deeper", 1, 1),
        ] {
            assert_eq!(locate(text, path), Position { line, column }, "{path}");
        }
    }

    proptest::proptest! {
        #[test]
        fn it_ends_for_any_text(text in "(\\{|\\}|\\[|\\]|:|,|\"|\\\\|a|é|1| |\n){0,40}", path in "\\$(\\.a|\\[0\\]|\\[\"é\"\\]|\\[){0,4}") {
            let _position = locate(&text, &path);
        }
    }
}
