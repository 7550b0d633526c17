//! Where the calls of an extension run, for one tenant. Quick ones run on the thread that serves the request. Where they often
//! compute for longer than the fast lane allows, they move to the worker pool, and back when they are quick again. A call that
//! overruns is begun anew there: an instance keeps no state, and what it logged is discarded with it. Where they often run
//! into their time-outs they move on, to threads that get only the processor time that no other thread wants.
//!
//! What counts is the time that a thread computed. A thread that waited for a processor says nothing about the extension.

use std::time::Duration;

/// What a call may compute in the fast lane. It is ended at the first tick of the clock after that.
pub(in crate::extensions) const FAST: Duration = Duration::from_micros(500);

/// A bad call counts as much as this many good ones: more than one in seventeen is often.
const BAD: u32 = 16;
/// From here on it happens often.
const OFTEN: u32 = 2 * BAD;
/// The highest score, so that an extension can recover.
const MAX_SCORE: u32 = 4 * BAD;

/// After so many quick calls in a row an extension is trusted.
const TRUSTED_AFTER: u32 = 1_000;

/// Where calls run: from the fastest on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::extensions) enum Place {
    /// On the thread that serves the request.
    Fast,
    /// On threads for those that take long.
    Slow,
    /// On threads for those that seldom end in time.
    Idle,
}

/// Where the next call runs, from what was seen of the last ones.
#[derive(Debug, Clone)]
pub(in crate::extensions) struct Lane {
    overruns: Habit,
    timeouts: Habit,
    /// Quick calls that are left until it is trusted.
    until_trusted: u32,
}

/// Whether something happens often.
#[derive(Debug, Default, Clone)]
struct Habit {
    /// How many good calls make up for the bad ones.
    score: u32,
    is_often: bool,
}

impl Place {
    /// As metrics, logs and the admin listener name it.
    pub(in crate::extensions) const fn as_str(self) -> &'static str {
        match self {
            Self::Fast => "fast",
            Self::Slow => "slow",
            Self::Idle => "idle",
        }
    }
}

impl Lane {
    /// A lane that begins in the worker pool, or in the fast lane.
    pub(in crate::extensions) fn new(slow: bool) -> Self {
        let mut overruns = Habit::default();
        overruns.set(slow);
        Self {
            overruns,
            timeouts: Habit::default(),
            until_trusted: TRUSTED_AFTER,
        }
    }

    /// Whether its calls need to be checked only seldom.
    pub(in crate::extensions) fn is_trusted(&self) -> bool {
        self.until_trusted == 0
    }

    /// Where its next call runs.
    pub(in crate::extensions) fn place(&self) -> Place {
        if !self.overruns.is_often {
            Place::Fast
        } else if !self.timeouts.is_often {
            Place::Slow
        } else {
            Place::Idle
        }
    }

    /// Counts a call by the time that it computed. Returns where calls run from now on, if that is another place.
    pub(in crate::extensions) fn count(&mut self, ran: Duration) -> Option<Place> {
        let overran = ran >= FAST;
        self.until_trusted = if overran {
            TRUSTED_AFTER
        } else {
            self.until_trusted.saturating_sub(1)
        };
        let before = self.place();
        self.overruns.count(overran);
        self.moved_from(before)
    }

    /// Counts a call by whether it ended in time; as above.
    pub(in crate::extensions) fn count_timeout(&mut self, timed_out: bool) -> Option<Place> {
        let before = self.place();
        self.timeouts.count(timed_out);
        self.moved_from(before)
    }

    fn moved_from(&self, before: Place) -> Option<Place> {
        let now = self.place();
        (now != before).then_some(now)
    }
}

impl Habit {
    fn set(&mut self, often: bool) {
        self.is_often = often;
        self.score = if often { MAX_SCORE } else { 0 };
    }

    fn count(&mut self, bad: bool) {
        if bad {
            self.score = (self.score + BAD).min(MAX_SCORE);
            if self.score >= OFTEN && !self.is_often {
                self.set(true);
            }
        } else if self.score > 0 {
            self.score -= 1;
            if self.score == 0 {
                self.set(false);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SLOW: Duration = Duration::from_millis(5);
    const QUICK: Duration = Duration::from_micros(10);

    #[test]
    fn one_slow_call_among_many_changes_nothing() {
        let mut lane = Lane::new(false);
        for _ in 0..100 {
            assert_eq!(lane.count(SLOW), None);
            assert!((0..20).all(|_| lane.count(QUICK).is_none()));
        }
        assert_eq!(lane.place(), Place::Fast);
    }

    #[test]
    fn slow_calls_in_a_row_move_it_and_quick_ones_bring_it_back() {
        let mut lane = Lane::new(false);
        assert_eq!(lane.count(SLOW), None);
        assert_eq!(lane.count(SLOW), Some(Place::Slow));
        let back = (0..200)
            .map(|_| lane.count(QUICK))
            .position(|moved| moved == Some(Place::Fast));
        assert_eq!(back, Some(63));
    }

    #[test]
    fn trust_is_earned_and_lost() {
        let mut lane = Lane::new(false);
        for call in 0..TRUSTED_AFTER {
            assert!(!lane.is_trusted(), "{call}");
            lane.count(QUICK);
        }
        assert!(lane.is_trusted());
        lane.count(SLOW);
        assert!(!lane.is_trusted());
    }

    #[test]
    fn one_that_seldom_ends_in_time_stands_back_until_it_does() {
        let mut lane = Lane::new(true);
        assert_eq!(lane.count_timeout(true), None);
        assert_eq!(lane.count_timeout(true), Some(Place::Idle));
        let back = (0..200)
            .map(|_| lane.count_timeout(false))
            .position(|moved| moved == Some(Place::Slow));
        assert_eq!(back, Some(63));
    }
}
