//! When a module is tried again that could not be had: later each time, and not at the same moment as others.

use std::time::{Duration, Instant};

/// What kept a module from being had.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cause {
    /// The module itself, or its record. Trying it again would change nothing.
    Lasting,
    /// This machine: a compiler that was ended from outside, or could not be started.
    Unclear,
    /// Its server or its disk does not give it.
    Away,
    /// What came is another module than the record names. Each try costs all of it.
    WrongContent,
}

/// When a module was tried, and how it ended.
#[derive(Debug, Clone, Copy)]
pub(super) struct Retry {
    pub(super) tries: u32,
    /// `None`: never, unless an operator asks for it.
    pub(super) again: Option<Instant>,
}

impl Retry {
    /// The next try after one more that failed. `chance` is between 0 and 1.
    pub(super) fn after(before: Option<Self>, cause: Cause, now: Instant, chance: f64) -> Self {
        let tries = before.map_or(0, |before| before.tries).saturating_add(1);
        let again = cause.pause(tries).map(|pause| {
            // Three quarters to five quarters of it.
            now + pause.mul_f64(0.75 + chance / 2.0)
        });
        Self { tries, again }
    }
}

impl Cause {
    fn pause(self, tries: u32) -> Option<Duration> {
        let (first, longest) = match self {
            Self::Lasting => return None,
            Self::Unclear => (1, 300),
            Self::Away => (5, 300),
            Self::WrongContent => (60, 3_600),
        };
        let factor = 1_u64 << tries.saturating_sub(1).min(12);
        Some(Duration::from_secs((first * factor).min(longest)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_a_bound_and_are_not_all_the_same() {
        let now = Instant::now();
        let pauses = |cause, chance| {
            let mut last = None;
            let mut pauses = Vec::new();
            for _ in 0..20 {
                let retry = Retry::after(last, cause, now, chance);
                pauses.push((retry.again.unwrap() - now).as_secs_f64());
                last = Some(retry);
            }
            pauses
        };
        let away = pauses(Cause::Away, 0.5);
        assert_eq!(away[..4], [5.0, 10.0, 20.0, 40.0]);
        assert!((away[19] - 300.0).abs() < 1e-9);
        assert_eq!(pauses(Cause::WrongContent, 0.5)[..3], [60.0, 120.0, 240.0]);
        assert!((pauses(Cause::WrongContent, 0.5)[19] - 3_600.0).abs() < 1e-9);
        assert!(pauses(Cause::Unclear, 0.0)[0] < pauses(Cause::Unclear, 1.0)[0]);
        assert!(Retry::after(None, Cause::Lasting, now, 0.5).again.is_none());
    }
}
