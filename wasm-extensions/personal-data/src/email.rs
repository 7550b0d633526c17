//! E-mail addresses.

use std::ops::Range;

/// What RFC 5321 allows before the `@`, in characters; it also bounds the way back from it.
const LOCAL_CHARS: usize = 64;
/// What it allows after the `@`.
const DOMAIN_CHARS: usize = 255;

fn is_letter(c: char) -> bool {
    c.is_ascii_alphabetic() || c >= '\u{c0}'
}

/// Letters of any script count, classified by their code point, so that all languages agree.
fn is_local(c: char) -> bool {
    is_letter(c) || c.is_ascii_digit() || matches!(c, '.' | '_' | '%' | '+' | '-')
}

/// E-mail addresses: `local@label.label`, where the last label has two letters or more.
pub(crate) fn emails(text: &str, add: &mut impl FnMut(Range<usize>)) {
    let mut after = 0;
    for (at, _) in text.match_indices('@') {
        if at < after {
            continue;
        }
        let start = text[after..at]
            .char_indices()
            .rev()
            .take(LOCAL_CHARS)
            .take_while(|(_, c)| is_local(*c))
            .last()
            .map_or(at, |(start, _)| after + start);
        // A dot cannot start an address.
        let dots = text[start..at].len() - text[start..at].trim_start_matches('.').len();
        let start = start + dots;
        if start == at {
            continue;
        }
        if let Some(length) = domain(&text[at + 1..]) {
            after = at + 1 + length;
            add(start..after);
        }
    }
}

/// The bytes of the longest domain that the text starts with.
fn domain(text: &str) -> Option<usize> {
    let mut end = None;
    let (mut labels, mut label, mut letters, mut start) = (0, 0, 0, 0);
    let mut chars = 0;
    for (at, c) in text.char_indices().chain([(text.len(), ' ')]) {
        chars += 1;
        if chars > DOMAIN_CHARS {
            break;
        }
        if is_letter(c) || c.is_ascii_digit() || c == '-' {
            label += 1;
            letters += usize::from(is_letter(c));
            continue;
        }
        if label == 0 {
            break;
        }
        let is_last = labels > 0 && label >= 2 && (letters == label || is_punycode(&text[start..at]));
        if is_last {
            end = Some(at);
        }
        if c != '.' {
            break;
        }
        labels += 1;
        start = at + 1;
        (label, letters) = (0, 0);
    }
    end
}

/// Whether an ASCII label writes letters of another script.
fn is_punycode(label: &str) -> bool {
    label.len() > 4
        && label
            .get(..4)
            .is_some_and(|start| start.eq_ignore_ascii_case("xn--"))
}
