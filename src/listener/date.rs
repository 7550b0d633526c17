//! `Date` after the system's clock was set back.
//!
//! hyper renders it once a second and waits for the next: with a clock that was set back, until that has come to where it
//! was. Until then it is rendered here.

use http::{HeaderValue, header};

use crate::{
    clock::{self, Timestamp},
    respond::Response,
};

/// Gives an answer its `Date` where hyper's stands still.
pub(super) fn correct(mut response: Response) -> Response {
    if clock::is_behind()
        && let Ok(date) = HeaderValue::try_from(imf_fixdate(clock::wall()))
    {
        response.headers_mut().insert(header::DATE, date);
    }
    response
}

/// As HTTP writes a time: `Sun, 06 Nov 1994 08:49:37 GMT`.
fn imf_fixdate(at: Timestamp) -> String {
    const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let seconds = at.unix_ms / 1_000;
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let (year, month, day) = civil(days);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    let weekday = DAYS[(days % 7) as usize];
    let month = MONTHS[month - 1];
    format!("{weekday}, {day:02} {month} {year:04} {hour:02}:{minute:02}:{second:02} GMT")
}

/// Year, month and day so many days after the first of 1970: each year is taken away, and then each month.
fn civil(mut days: u64) -> (u64, usize, u64) {
    let mut year = 1970;
    let is_leap =
        |year: u64| year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    loop {
        let length = if is_leap(year) { 366 } else { 365 };
        if days < length {
            break;
        }
        days -= length;
        year += 1;
    }
    let february = if is_leap(year) { 29 } else { 28 };
    let mut month = 1;
    for length in [31, february, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31] {
        if days < length {
            break;
        }
        days -= length;
        month += 1;
    }
    (year, month, days + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_http_writes_it() {
        for (unix_seconds, written) in [
            (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
            (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
            (951_827_696, "Tue, 29 Feb 2000 12:34:56 GMT"),
            (1_735_689_599, "Tue, 31 Dec 2024 23:59:59 GMT"),
            (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        ] {
            assert_eq!(
                imf_fixdate(Timestamp::from_unix_ms(unix_seconds * 1_000 + 999)),
                written
            );
        }
    }
}
