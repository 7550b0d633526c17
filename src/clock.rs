//! Time: one that only goes forward, for everything that waits, ages or expires, and the time of day.
//!
//! The system's clock may be set, by a second or by a day. So what decisions remember is counted in a time that begins as
//! the system's when this process starts, and goes on by itself. The time of day is for what is shown, written down, or
//! compared with what others say. Both are values that are passed along: decisions take them as arguments, so that a test
//! owns them.

use std::{
    str::FromStr,
    sync::{
        LazyLock,
        atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use time::{Date, Month, OffsetDateTime};

/// What the two times may differ by without a step: reading both takes a moment, and the system's is corrected now and then.
const NO_STEP_MS: u64 = 500;

/// When this process first asked for the time: by the clock that only goes forward, and by the system's.
static START: LazyLock<(Instant, u64)> = LazyLock::new(|| (Instant::now(), wall().unix_ms));

/// How far the system's clock is ahead of [`now`], as of the last look.
static AHEAD_MS: AtomicI64 = AtomicI64::new(0);

/// The latest time of day that was seen, and the time until which the clock is back behind it; zero: it is not.
static LATEST_MS: AtomicU64 = AtomicU64::new(0);
static BEHIND_UNTIL_MS: AtomicU64 = AtomicU64::new(0);

/// What a test has set the time of day to differ by.
static SHIFT_MS: AtomicI64 = AtomicI64::new(0);

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

    /// Milliseconds since an earlier time; zero if that one is later.
    pub const fn since(self, earlier: Self) -> u64 {
        self.unix_ms.saturating_sub(earlier.unix_ms)
    }

    /// The point in time so many milliseconds later, or earlier.
    pub const fn shifted(self, by_ms: i64) -> Self {
        Self::from_unix_ms(self.unix_ms.saturating_add_signed(by_ms))
    }

    /// What the system's clock said at this time of [`now`], had it always stood as it does.
    pub fn on_the_wall(self) -> Self {
        notice_step();
        self.shifted(ahead_ms())
    }
}

/// The time now, for everything that waits, ages or expires: it never goes back, whatever becomes of the system's clock.
pub fn now() -> Timestamp {
    let (start, unix_ms) = *START;
    let elapsed = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
    Timestamp::from_unix_ms(unix_ms.saturating_add(elapsed))
}

/// The time of day. The only place that reads the system's clock.
pub fn wall() -> Timestamp {
    // A clock before 1970 is no clock; the first millisecond is as good.
    let since = wall_time().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// As [`wall`], as files have it.
pub fn wall_time() -> SystemTime {
    let (now, shift) = (SystemTime::now(), SHIFT_MS.load(Relaxed));
    let by = Duration::from_millis(shift.unsigned_abs());
    let shifted = if shift < 0 {
        now.checked_sub(by)
    } else {
        now.checked_add(by)
    };
    shifted.unwrap_or(now)
}

/// How far the system's clock is ahead of [`now`], or behind it where this is negative, as of the last look.
pub fn ahead_ms() -> i64 {
    AHEAD_MS.load(Relaxed)
}

/// Looks at the system's clock. By how many milliseconds it was set since the last look, if it was.
pub fn notice_step() -> Option<i64> {
    // The start must not be later than the time it is compared with.
    let now = now().unix_ms;
    let wall = wall().unix_ms;
    let latest = LATEST_MS.fetch_max(wall, Relaxed);
    let is_behind = wall.saturating_add(NO_STEP_MS) < latest;
    let behind_until = if is_behind {
        latest.saturating_add(1_000)
    } else {
        0
    };
    BEHIND_UNTIL_MS.store(behind_until, Relaxed);
    let ahead = i64::try_from(i128::from(wall) - i128::from(now)).unwrap_or_default();
    let before = AHEAD_MS.load(Relaxed);
    if ahead.abs_diff(before) < NO_STEP_MS {
        return None;
    }
    AHEAD_MS.store(ahead, Relaxed);
    Some(ahead.saturating_sub(before))
}

/// Whether the system's clock was set back, as of the last look, and has not come to where it was. Caches of the time of
/// day that wait for a later one stand still meanwhile.
pub fn is_behind() -> bool {
    BEHIND_UNTIL_MS.load(Relaxed) != 0
}

/// Sets the time of day that this process sees, as setting the system's clock would. For tests of what that does.
#[doc(hidden)]
pub fn step_wall(by_ms: i64) {
    SHIFT_MS.fetch_add(by_ms, Relaxed);
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
    fn a_step_of_the_system_s_clock_is_no_step_of_what_waits() {
        let began = now();
        assert!(began.unix_ms.abs_diff(wall().unix_ms) < NO_STEP_MS);
        assert_eq!((notice_step(), ahead_ms(), is_behind()), (None, 0, false));
        for (step, behind) in [(-30_000, true), (86_400_000, false), (-86_370_000, true)] {
            let before = now();
            step_wall(step);
            assert!(now().since(before) < 10_000 && now() >= before);
            let noticed = notice_step().unwrap();
            assert!(noticed.abs_diff(step) < NO_STEP_MS, "{noticed}");
            assert_eq!((notice_step(), is_behind()), (None, behind));
            let shown = now().on_the_wall();
            assert!(shown.unix_ms.abs_diff(wall().unix_ms) < NO_STEP_MS);
        }
        assert!(now().since(began) < 10_000);
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
