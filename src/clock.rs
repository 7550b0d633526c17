//! The time of day, as a value that is passed along: decisions take it as an argument, so that a test owns it.

use std::{
    str::FromStr,
    time::{SystemTime, UNIX_EPOCH},
};

use time::{Date, Month, OffsetDateTime};

/// A point in time, in milliseconds since the Unix epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp {
    /// Milliseconds since the Unix epoch.
    pub unix_ms: u64,
}

impl Timestamp {
    /// The point in time this many milliseconds after the Unix epoch.
    pub const fn from_unix_ms(unix_ms: u64) -> Self {
        Self { unix_ms }
    }

    /// Milliseconds since an earlier time; zero if that one is later, as after a clock that was set back.
    pub const fn since(self, earlier: Self) -> u64 {
        self.unix_ms.saturating_sub(earlier.unix_ms)
    }
}

/// The time now. The only place that reads the system's clock for decisions.
pub fn now() -> Timestamp {
    // A clock before 1970 is no clock; the first millisecond is as good.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// A text that is not a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("is neither Unix milliseconds nor a time such as 2025-01-31T08:30:00Z, from 1970 on")]
pub struct InvalidTimestamp;

impl FromStr for Timestamp {
    type Err = InvalidTimestamp;

    /// Reads Unix milliseconds, or a time as RFC 3339 writes it. What is finer than a millisecond is cut off.
    fn from_str(text: &str) -> Result<Self, InvalidTimestamp> {
        if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
            return text.parse().map(Self::from_unix_ms).map_err(|_| InvalidTimestamp);
        }
        rfc_3339(text).map(Self::from_unix_ms).ok_or(InvalidTimestamp)
    }
}

fn rfc_3339(text: &str) -> Option<u64> {
    let (date, time) = text.split_once(['T', 't', ' '])?;
    let (year, month, day) = three(date, '-', [4, 2, 2])?;
    let zone = time.find(['Z', 'z', '+', '-'])?;
    let (time, zone) = (time.get(..zone)?, time.get(zone..)?);
    let (time, fraction) = time.split_once('.').unwrap_or((time, "0"));
    let (hour, minute, second) = three(time, ':', [2, 2, 2])?;
    // A leap second is the second after it.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let all_digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let millis = format!("{fraction:0<3}");
    let millis: i64 = millis.get(..3).filter(|_| all_digits(fraction))?.parse().ok()?;
    let offset = if zone.eq_ignore_ascii_case("z") {
        0
    } else {
        let (hours, minutes) = zone.get(1..)?.split_once(':')?;
        let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
        if hours > 23 || minutes > 59 {
            return None;
        }
        let minutes = hours * 60 + minutes;
        if zone.starts_with('-') { -minutes } else { minutes }
    };
    let days = days_since_1970(year, month, day)?;
    let seconds = days * 86_400 + hour * 3_600 + (minute - offset) * 60 + second;
    u64::try_from(seconds * 1_000 + millis).ok()
}

/// Digits, exactly so many.
fn digits(text: &str, length: usize) -> Option<i64> {
    let plain = text.len() == length && text.bytes().all(|b| b.is_ascii_digit());
    text.parse().ok().filter(|_| plain)
}

fn three(text: &str, separator: char, lengths: [usize; 3]) -> Option<(i64, i64, i64)> {
    let mut parts = text
        .split(separator)
        .zip(lengths)
        .map(|(part, length)| digits(part, length));
    let found = (parts.next()??, parts.next()??, parts.next()??);
    (text.split(separator).count() == 3).then_some(found)
}

fn days_since_1970(year: i64, month: i64, day: i64) -> Option<i64> {
    let month = Month::try_from(u8::try_from(month).ok()?).ok()?;
    let date = Date::from_calendar_date(year.try_into().ok()?, month, day.try_into().ok()?).ok()?;
    Some((date.to_julian_day() - OffsetDateTime::UNIX_EPOCH.date().to_julian_day()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> Option<u64> {
        text.parse().ok().map(|timestamp: Timestamp| timestamp.unix_ms)
    }

    #[test]
    fn times_are_read_as_they_are_written() {
        for (text, expected) in [
            ("0", 0),
            ("1735689600000", 1_735_689_600_000),
            ("1970-01-01T00:00:00Z", 0),
            ("2025-01-01T00:00:00Z", 1_735_689_600_000),
            ("2025-01-01T01:30:00+01:30", 1_735_689_600_000),
            ("2024-12-31 19:00:00-05:00", 1_735_689_600_000),
            ("2024-02-29T12:00:00.5Z", 1_709_208_000_500),
            ("2000-03-01t00:00:00.123456z", 951_868_800_123),
            ("2016-12-31T23:59:60Z", 1_483_228_800_000),
            ("9999-12-31T23:59:59Z", 253_402_300_799_000),
        ] {
            assert_eq!(ms(text), Some(expected), "{text}");
        }
        for text in [
            "",
            "now",
            "-1",
            "2025-01-01",
            "2025-01-01T00:00:00",
            "2025-02-29T00:00:00Z",
            "2025-13-01T00:00:00Z",
            "2025-01-00T00:00:00Z",
            "2025-1-01T00:00:00Z",
            "2025-01-01T24:00:00Z",
            "2025-01-01T00:60:00Z",
            "2025-01-01T00:00:61Z",
            "2025-01-01T00:00Z",
            "2025-01-01T00:00:00+1",
            "2025-01-01T00:00:00+24:00",
            "2025-01-01T00:00:00.Z",
            "2025-01-01T00:00:00.1x2Z",
            "1969-12-31T23:59:59Z",
            "99999999999999999999999",
            "2025-01-01-01T00:00:00Z",
            "2025-01-01T00:00:00Zulu",
            "+025-01-01T00:00:00Z",
        ] {
            assert_eq!(ms(text), None, "{text}");
        }
    }

    /// Every day of 800 years, counted one by one.
    #[test]
    fn no_day_is_lost() {
        let mut expected = 0;
        for year in 1970..2770 {
            for month in 1..=12 {
                let days = (1..=32).filter_map(|day| ms(&format!("{year}-{month:02}-{day:02}T00:00:00Z")));
                for found in days {
                    assert_eq!(found, expected * 86_400_000, "{year}-{month}");
                    expected += 1;
                }
            }
        }
        assert_eq!(expected, 292_194, "800 years have 194 leap days");
    }
}
