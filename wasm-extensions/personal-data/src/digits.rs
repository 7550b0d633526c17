//! Payment cards and telephone numbers: digits in groups.

use std::ops::Range;

/// Where digits stand together: added to `runs`.
pub(crate) fn runs(text: &str, runs: &mut Vec<Range<usize>>) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while let Some(before) = bytes[at..].iter().position(u8::is_ascii_digit) {
        let start = at + before;
        let length = bytes[start..].iter().take_while(|c| c.is_ascii_digit()).count();
        at = start + length;
        runs.push(start..at);
    }
}

/// What people put between the groups of a number.
fn is_card_separator(c: char) -> bool {
    matches!(
        c,
        ' ' | '-' | '.' | '/' | '\u{a0}' | '\u{2007}' | '\u{202f}' | '\u{2010}'..='\u{2014}'
    )
}

/// The one character between two runs of digits, if there is one and it may stand in a card's number.
fn card_separator(text: &str, before: &Range<usize>, after: &Range<usize>) -> Option<char> {
    let mut between = text[before.end..after.start].chars();
    let first = between.next().filter(|c| is_card_separator(*c));
    first.filter(|_| between.next().is_none())
}

/// Payment cards.
pub(crate) fn cards(text: &str, runs: &[Range<usize>], add: &mut impl FnMut(Range<usize>)) {
    // Where the number begins that a run belongs to: runs with one separator between each two.
    let mut number = 0;
    let mut first = 0;
    while first < runs.len() {
        let separator = match first {
            0 => None,
            _ => card_separator(text, &runs[first - 1], &runs[first]),
        };
        if separator.is_none() {
            number = first;
        }
        // The decimals of a number are no card.
        let is_decimals = separator == Some('.') && first == number + 1;
        match (!is_decimals).then(|| card_from(text, &runs[first..])).flatten() {
            Some(taken) => {
                add(runs[first].start..runs[first + taken - 1].end);
                first += taken;
            }
            None => first += 1,
        }
    }
}

/// The most digits of a card.
const CARD_DIGITS: usize = 19;

/// The most runs from the first that make a card together.
fn card_from(text: &str, runs: &[Range<usize>]) -> Option<usize> {
    let mut digits = [0; CARD_DIGITS];
    let mut length = 0;
    let mut card = None;
    for (index, run) in runs.iter().enumerate() {
        let goes_on = index == 0 || card_separator(text, &runs[index - 1], run).is_some();
        if !goes_on || length + run.len() > CARD_DIGITS {
            break;
        }
        for (digit, c) in digits[length..].iter_mut().zip(text[run.clone()].bytes()) {
            *digit = c - b'0';
        }
        length += run.len();
        if is_card(&digits[..length]) {
            card = Some(index + 1);
        }
    }
    card
}

fn is_card(digits: &[u8]) -> bool {
    digits.len() >= 13 && has_issuer(digits) && luhn(digits)
}

/// Whether an issuer gives out numbers of this length that start so.
fn has_issuer(digits: &[u8]) -> bool {
    let length = digits.len();
    let prefix = digits[..4]
        .iter()
        .fold(0_u16, |prefix, digit| prefix * 10 + u16::from(*digit));
    match prefix {
        4000..=4999 => matches!(length, 13 | 16 | 19),
        5100..=5599 | 2221..=2720 => length == 16,
        3400..=3499 | 3700..=3799 => length == 15,
        3000..=3059 | 3600..=3699 | 3800..=3999 => length == 14,
        3528..=3589 | 6011 | 6440..=6599 | 6200..=6299 => length >= 16,
        5000..=5099 | 5600..=5899 | 6300..=6399 | 6700..=6799 => true,
        _ => false,
    }
}

/// The check digit of ISO/IEC 7812.
pub(crate) fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(place, digit)| match (place % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn is_phone_filler(c: char) -> bool {
    matches!(c, ' ' | '-' | '.' | '/' | '(' | ')' | '\u{a0}' | '\u{202f}')
}

/// The longest telephone number a scan follows, in characters.
const PHONE_CHARS: usize = 32;

/// A telephone number as far as a group of its digits goes.
#[derive(Debug)]
struct Part {
    /// The digits of this group.
    length: usize,
    /// Those of this group and of all before it.
    digits: usize,
    end: usize,
}

/// The groups of digits from `start` on, with one or two fillers between each two, and the first digits.
fn phone_parts(text: &str, start: usize) -> (Vec<Part>, Vec<u8>) {
    let (mut parts, mut digits) = (Vec::new(), Vec::with_capacity(32));
    let (mut length, mut end, mut fillers) = (0, start, 0);
    for (at, c) in text[start..]
        .char_indices()
        .chain([(text.len() - start, '\0')])
        .take(PHONE_CHARS)
    {
        if c.is_ascii_digit() {
            digits.push(c as u8 - b'0');
            length += 1;
            end = start + at + 1;
            fillers = 0;
            continue;
        }
        if length > 0 {
            parts.push(Part {
                length,
                digits: digits.len(),
                end,
            });
            length = 0;
        }
        fillers += 1;
        if !is_phone_filler(c) || fillers > 2 {
            break;
        }
    }
    (parts, digits)
}

/// Telephone numbers in the international form.
pub(crate) fn phones(text: &str, runs: &[Range<usize>], add: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut pluses = text.match_indices('+').map(|(at, _)| at).peekable();
    let mut zeros = runs
        .iter()
        .filter(|run| bytes[run.start..run.end].starts_with(b"00"))
        .map(|run| run.start)
        .peekable();
    let mut after = 0;
    loop {
        let is_plus = match (pluses.peek(), zeros.peek()) {
            (None, None) => break,
            (Some(plus), Some(zero)) => plus < zero,
            (plus, _) => plus.is_some(),
        };
        let (next, prefix) = if is_plus {
            (pluses.next(), 1)
        } else {
            (zeros.next(), 2)
        };
        let Some(at) = next else { break };
        if at < after || (at > 0 && bytes[at - 1].is_ascii_alphanumeric()) {
            continue;
        }
        let (parts, digits) = phone_parts(text, at + prefix);
        let fits = |part: &&Part| (8..=15).contains(&part.digits);
        if let Some(part) = parts.iter().rev().find(fits)
            && digits[0] != 0
        {
            add(at..part.end);
            after = part.end;
        }
    }
}

/// Telephone numbers in national forms: North American (`212-555-0123`, `(212) 555-0123`), and those
/// with a trunk `0`, 10 or 11 digits in two or more groups (`020 7946 0123`).
pub(crate) fn national_phones(text: &str, add: &mut impl FnMut(Range<usize>)) {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        let after = at > 0 && (bytes[at - 1].is_ascii_alphanumeric() || bytes[at - 1] == b'+');
        let opens = bytes[at] == b'(';
        if after || !(opens || bytes[at].is_ascii_digit()) {
            at += 1;
            continue;
        }
        match national_from(text, at + usize::from(opens)) {
            Some(end) => {
                add(at..end);
                at = end;
            }
            // Past this group: its other digits start nothing.
            None => {
                at += 1;
                while at < bytes.len() && bytes[at].is_ascii_digit() {
                    at += 1;
                }
            }
        }
    }
}

fn national_from(text: &str, start: usize) -> Option<usize> {
    let (parts, digits) = phone_parts(text, start);
    if let [first, second, third, ..] = &parts[..]
        && [first.length, second.length, third.length] == [3, 3, 4]
        && digits[0] >= 2
        && digits[3] >= 2
    {
        return Some(third.end);
    }
    let starts = parts.len() >= 2 && parts[0].length >= 3 && digits[0] == 0 && digits[1] != 0;
    let fits = |part: &&Part| matches!(part.digits, 10 | 11);
    parts
        .iter()
        .skip(1)
        .rev()
        .find(fits)
        .filter(|_| starts)
        .map(|part| part.end)
}
