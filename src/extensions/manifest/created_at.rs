//! When a version was made, as the platform writes it.

/// A moment. Those that can be read come in their order, wherever on earth they were written down; before them come those
/// that cannot, as texts.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum CreatedAt {
    Unknown,
    Text(Box<str>),
    /// Nanoseconds since 0000-03-01 in UTC.
    Moment(i128),
}

impl CreatedAt {
    pub(super) fn read(text: &str) -> Self {
        moment(text.trim()).map_or_else(|| Self::Text(text.into()), Self::Moment)
    }
}

/// Reads `2025-01-31T12:00:00.5+02:00`: RFC 3339, with a blank for the `T`, or without a zone, which means UTC, as SQL
/// databases write it.
fn moment(text: &str) -> Option<i128> {
    let (date, rest) = text.split_at_checked(10)?;
    let [year, month, day] = numbers(date, '-')?;
    let is_date = (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date {
        return None;
    }
    let days = days(year, month, day);
    let Some(time) = rest.strip_prefix(['T', 't', ' ']) else {
        return rest.is_empty().then(|| days * 86_400 * 1_000_000_000);
    };
    let (clock, zone) = time.split_at_checked(8)?;
    let [hour, minute, second] = numbers(clock, ':')?;
    if hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let (nanoseconds, zone) = fraction(zone)?;
    let seconds = days * 86_400 + hour * 3_600 + minute * 60 + second - offset(zone.trim_start())?;
    Some(seconds * 1_000_000_000 + nanoseconds)
}

fn number(text: &str) -> Option<i128> {
    let is_digits = !text.is_empty() && text.len() <= 9 && text.bytes().all(|byte| byte.is_ascii_digit());
    is_digits.then(|| text.parse().ok())?
}

fn numbers(text: &str, between: char) -> Option<[i128; 3]> {
    let mut parts = text.split(between).map(number);
    let all = [parts.next()??, parts.next()??, parts.next()??];
    parts.next().is_none().then_some(all)
}

/// Days since 0000-03-01 of the Gregorian calendar: the day that leap years add is the last of the year that begins then.
fn days(year: i128, month: i128, day: i128) -> i128 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    year * 365 + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (month * 153 + 2) / 5
        + day
        - 1
}

/// The nanoseconds of `.5Z`, and what follows.
fn fraction(text: &str) -> Option<(i128, &str)> {
    let Some(digits) = text.strip_prefix('.') else {
        return Some((0, text));
    };
    let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
    let (digits, rest) = digits.split_at_checked(end)?;
    let kept = digits.get(..9).unwrap_or(digits);
    Some((number(&format!("{kept:0<9}"))?, rest))
}

/// The seconds by which a zone is ahead.
fn offset(zone: &str) -> Option<i128> {
    if zone.is_empty() || zone.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let ahead = match zone.as_bytes().first()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let digits: String = zone.chars().skip(1).filter(|c| *c != ':').collect();
    let (hours, minutes) = digits.split_at_checked(2)?;
    let minutes = if minutes.is_empty() { 0 } else { number(minutes)? };
    Some(ahead * (number(hours)? * 3_600 + minutes * 60))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_come_in_their_order_wherever_they_were_written_down() {
        let in_order = [
            "tomorrow",
            "2024-02-28T23:59:59Z",
            "2024-02-29",
            "2024-03-01T00:30:00+01:00",
            "2024-03-01T00:00:00.25Z",
            "2024-03-01T00:00:00.3Z",
            "2024-02-29T23:00:00-01:30",
            "2024-03-01 10:00:00",
            "2024-12-31T23:59:60Z",
            "2025-01-01T09:00:00+0800",
            "2025-01-01T02:00:00Z",
        ];
        let read: Vec<CreatedAt> = in_order.iter().map(|text| CreatedAt::read(text)).collect();
        for (pair, text) in read.windows(2).zip(in_order) {
            assert!(pair[0] < pair[1], "{text}: {pair:?}");
        }
        assert!(CreatedAt::Unknown < read[0]);
        assert_eq!(
            CreatedAt::read("2025-01-01T00:00:00Z"),
            CreatedAt::read("2025-01-01T02:00:00.000+02:00")
        );
        for text in [
            "",
            "2025",
            "2025-13-01",
            "2025-01-01T1:00:00Z",
            "2025-01-01T00:00:00*",
            "äääääääääää",
        ] {
            assert!(matches!(CreatedAt::read(text), CreatedAt::Text(_)), "{text}");
        }
    }
}
