//! Where an extension runs. Quick extensions run on the thread that serves the request. An extension whose calls often take
//! longer than the fast lane allows moves to the worker pool, and back when they are quick again. A call that overruns is
//! begun anew there: an instance keeps no state, and what it logged is discarded with it. An extension whose calls often
//! run into their deadlines moves on, to threads that get only the processor time that no other thread wants.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::Duration,
};

/// What a call may take in the fast lane. It is ended at the first tick of the clock after that.
pub(in crate::extensions) const FAST: Duration = Duration::from_micros(500);

/// A bad call counts as much as this many good ones: more than one in seventeen is often.
const BAD: u32 = 16;
/// From here on it happens often.
const OFTEN: u32 = 2 * BAD;
/// The highest score, so that an extension can recover.
const MAX_SCORE: u32 = 4 * BAD;

/// After so many quick calls in a row an extension is trusted.
const TRUSTED_AFTER: u32 = 1_000;

/// Where calls of an extension run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) enum Place {
    /// On the thread that serves the request.
    Fast,
    /// On threads for those that take long.
    Slow,
    /// On threads for those that seldom end in time.
    Idle,
}

/// The lane of one extension, from what was seen of its calls.
#[derive(Debug)]
pub(in crate::extensions) struct Lane {
    overruns: Habit,
    timeouts: Habit,
    /// Quick calls that are left until it is trusted.
    until_trusted: AtomicU32,
}

/// Whether something happens often. Two calls at the same time may count as one: it is an estimate.
#[derive(Debug, Default)]
struct Habit {
    /// How many good calls make up for the bad ones.
    score: AtomicU32,
    is_often: AtomicBool,
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
        let lane = Self {
            overruns: Habit::default(),
            timeouts: Habit::default(),
            until_trusted: AtomicU32::default(),
        };
        lane.restart(slow);
        lane
    }

    /// Begins anew, as for another module.
    pub(in crate::extensions) fn restart(&self, slow: bool) {
        self.overruns.set(slow);
        self.timeouts.set(false);
        self.until_trusted.store(TRUSTED_AFTER, Ordering::Relaxed);
    }

    /// Whether its calls need to be checked only seldom.
    pub(in crate::extensions) fn is_trusted(&self) -> bool {
        self.until_trusted.load(Ordering::Relaxed) == 0
    }

    /// Where its next call runs.
    pub(in crate::extensions) fn place(&self) -> Place {
        if !self.overruns.is_often() {
            Place::Fast
        } else if !self.timeouts.is_often() {
            Place::Slow
        } else {
            Place::Idle
        }
    }

    /// Counts a call by the time it took. Returns where the extension runs from now on, if that is another place.
    pub(in crate::extensions) fn count(&self, took: Duration) -> Option<Place> {
        let overran = took >= FAST;
        let until_trusted = self.until_trusted.load(Ordering::Relaxed);
        if overran {
            self.until_trusted.store(TRUSTED_AFTER, Ordering::Relaxed);
        } else if until_trusted > 0 {
            self.until_trusted.store(until_trusted - 1, Ordering::Relaxed);
        }
        self.note(&self.overruns, overran)
    }

    /// Counts a call by whether it ended in time; as above.
    pub(in crate::extensions) fn count_timeout(&self, timed_out: bool) -> Option<Place> {
        self.note(&self.timeouts, timed_out)
    }

    fn note(&self, habit: &Habit, bad: bool) -> Option<Place> {
        let before = self.place();
        habit.count(bad);
        let now = self.place();
        (now != before).then_some(now)
    }
}

impl Habit {
    fn set(&self, often: bool) {
        self.is_often.store(often, Ordering::Relaxed);
        self.score
            .store(if often { MAX_SCORE } else { 0 }, Ordering::Relaxed);
    }

    fn is_often(&self) -> bool {
        self.is_often.load(Ordering::Relaxed)
    }

    fn count(&self, bad: bool) {
        let before = self.score.load(Ordering::Relaxed);
        if !bad && before == 0 {
            return;
        }
        let score = if bad {
            (before + BAD).min(MAX_SCORE)
        } else {
            before - 1
        };
        if score == 0 || (score >= OFTEN && !self.is_often()) {
            self.set(score > 0);
        } else {
            self.score.store(score, Ordering::Relaxed);
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
        let lane = Lane::new(false);
        for _ in 0..100 {
            assert_eq!(lane.count(SLOW), None);
            assert!((0..20).all(|_| lane.count(QUICK).is_none()));
        }
        assert_eq!(lane.place(), Place::Fast);
    }

    #[test]
    fn slow_calls_in_a_row_move_it_and_quick_ones_bring_it_back() {
        let lane = Lane::new(false);
        assert_eq!(lane.count(SLOW), None);
        assert_eq!(lane.count(SLOW), Some(Place::Slow));
        let back = (0..200)
            .map(|_| lane.count(QUICK))
            .position(|moved| moved == Some(Place::Fast));
        assert_eq!(back, Some(63));
    }

    #[test]
    fn trust_is_earned_and_lost() {
        let lane = Lane::new(false);
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
        let lane = Lane::new(true);
        assert_eq!(lane.count_timeout(true), None);
        assert_eq!(lane.count_timeout(true), Some(Place::Idle));
        let back = (0..200)
            .map(|_| lane.count_timeout(false))
            .position(|moved| moved == Some(Place::Slow));
        assert_eq!(back, Some(63));
    }
}
