//! National identity numbers: words of ASCII letters and digits, with few separators.

use std::ops::Range;

/// Runs of characters for which `is_in` holds and among which digits are, without those they start or
/// end with that are not letters or digits.
fn words(
    text: &str,
    digits: &[Range<usize>],
    is_in: fn(u8) -> bool,
    mut word: impl FnMut(&[u8], Range<usize>),
) {
    let bytes = text.as_bytes();
    let mut after = 0;
    for run in digits {
        if run.start < after {
            continue;
        }
        let before = bytes[after..run.start].iter().rev();
        let first = run.start - before.take_while(|c| is_in(**c)).count();
        after = run.end + bytes[run.end..].iter().take_while(|c| is_in(**c)).count();
        let edge = |c: &&u8| !c.is_ascii_alphanumeric();
        let start = first + bytes[first..after].iter().take_while(edge).count();
        let end = after - bytes[first..after].iter().rev().take_while(edge).count();
        word(&bytes[start..end], start..end);
    }
}

fn number(digits: &[u8]) -> u32 {
    digits
        .iter()
        .fold(0, |number, digit| number * 10 + u32::from(digit - b'0'))
}

fn all_digits(text: &[u8]) -> bool {
    text.iter().all(u8::is_ascii_digit)
}

/// `123-45-6789`: no part is zero, the first is neither 666 nor 900 and above.
pub(crate) fn us_ssn(text: &str, digits: &[Range<usize>], add: &mut impl FnMut(Range<usize>)) {
    words(
        text,
        digits,
        |c| c.is_ascii_alphanumeric() || c == b'-',
        |word, at| {
            if word.len() != 11 || word[3] != b'-' || word[6] != b'-' {
                return;
            }
            let parts = [&word[..3], &word[4..6], &word[7..]];
            if parts.iter().all(|part| all_digits(part) && number(part) > 0)
                && !matches!(number(parts[0]), 666 | 900..)
            {
                add(at);
            }
        },
    );
}

/// `QQ 12 34 56 C`, spaces optional: two letters, six digits, and A to D.
pub(crate) fn gb_nino(text: &str, digits: &[Range<usize>], add: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut after = 0;
    for run in digits {
        // Two letters, and perhaps a space, stand before the first digit.
        let space = usize::from(run.start > 0 && bytes[run.start - 1] == b' ');
        let Some(start) = run.start.checked_sub(2 + space) else {
            continue;
        };
        let is_within = start > 0 && bytes[start - 1].is_ascii_alphanumeric();
        if start < after || is_within {
            continue;
        }
        if let Some(end) = nino_from(bytes, start) {
            add(start..end);
            after = end;
        }
    }
}

fn nino_from(bytes: &[u8], start: usize) -> Option<usize> {
    let mut nino = [0; 9];
    let mut at = start;
    for (place, filled) in nino.iter_mut().enumerate() {
        // A space may stand before each pair, and before the last letter.
        if matches!(place, 2 | 4 | 6 | 8) && bytes.get(at) == Some(&b' ') {
            at += 1;
        }
        *filled = bytes.get(at)?.to_ascii_uppercase();
        at += 1;
    }
    let [first, second, digits @ .., last] = nino;
    let never = |c: u8| b"DFIQUV".contains(&c);
    let prefix = first.is_ascii_uppercase()
        && second.is_ascii_uppercase()
        && !never(first)
        && !never(second)
        && second != b'O'
        && ![*b"BG", *b"GB", *b"NK", *b"KN", *b"TN", *b"NT", *b"ZZ"].contains(&[first, second]);
    let ends = !bytes.get(at).is_some_and(u8::is_ascii_alphanumeric);
    (prefix && all_digits(&digits) && matches!(last, b'A'..=b'D') && ends).then_some(at)
}

/// `12345678Z`, `12345678-Z` or `X1234567L`: the letter is the number's remainder by 23.
pub(crate) fn es_dni(text: &str, digits: &[Range<usize>], add: &mut impl FnMut(Range<usize>)) {
    words(
        text,
        digits,
        |c| c.is_ascii_alphanumeric() || c == b'-',
        |word, at| {
            // One hyphen before the letter, and one after the first letter of a NIE.
            let mut plain = [0; 9];
            let mut length = 0;
            for (place, c) in word.iter().enumerate() {
                if *c == b'-' {
                    if place != 1 && place + 2 != word.len() {
                        return;
                    }
                } else if length < 9 {
                    plain[length] = c.to_ascii_uppercase();
                    length += 1;
                } else {
                    return;
                }
            }
            if length != 9 {
                return;
            }
            let [mut first, .., last] = plain;
            match first {
                b'X' | b'Y' | b'Z' => first = b'0' + (first - b'X'),
                // A hyphen after the first digit is no DNI.
                _ if word[1] == b'-' => return,
                _ => {}
            }
            plain[0] = first;
            if all_digits(&plain[..8])
                && last == b"TRWAGMYFPDXBNJZSQVHLCKE"[(number(&plain[..8]) % 23) as usize]
            {
                add(at);
            }
        },
    );
}

/// Eleven digits: a date whose month encodes the century, and a check digit.
pub(crate) fn pl_pesel(text: &str, digits: &[Range<usize>], add: &mut impl FnMut(Range<usize>)) {
    words(
        text,
        digits,
        |c| c.is_ascii_alphanumeric(),
        |word, at| {
            if word.len() != 11 || !all_digits(word) {
                return;
            }
            let month = number(&word[2..4]) % 20;
            let day = number(&word[4..6]);
            let sum: u32 = word
                .iter()
                .zip([1, 3, 7, 9, 1, 3, 7, 9, 1, 3, 1])
                .map(|(digit, weight)| u32::from(digit - b'0') * weight)
                .sum();
            if (1..=12).contains(&month) && (1..=31).contains(&day) && sum.is_multiple_of(10) {
                add(at);
            }
        },
    );
}
