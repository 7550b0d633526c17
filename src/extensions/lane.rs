//! Where an extension is run. Quick ones run on the thread that serves the request. One whose calls often take longer than
//! the fast lane allows moves to threads of its own, and back when it behaves. A call that overruns is begun anew there:
//! an instance keeps nothing, and what it said is thrown away with it.

use std::sync::atomic::{AtomicU8, AtomicU32, Ordering};
use std::time::Duration;

/// What a call may take in the fast lane. The clock looks once a millisecond.
pub(super) const FAST: Duration = Duration::from_micros(500);

/// A call that overruns counts as much as this many that do not: more than one in seventeen moves an extension.
const OVERRUN: u32 = 16;
/// Where it moves, and the most that is counted: what a slow one has to make good before it moves back.
const MOVES_AT: u32 = 2 * OVERRUN;
const MOST: u32 = 4 * OVERRUN;

#[derive(Debug)]
pub(super) struct Lane {
    place: AtomicU8,
    score: AtomicU32,
}

const IN_FAST: u8 = 0;
const IN_SLOW: u8 = 1;

/// An extension changed lanes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    ToSlow,
    ToFast,
}

impl Lane {
    pub(super) fn new(slow: bool) -> Self {
        Self {
            place: AtomicU8::new(if slow { IN_SLOW } else { IN_FAST }),
            score: AtomicU32::new(if slow { MOST } else { 0 }),
        }
    }

    pub(super) fn restart(&self, slow: bool) {
        self.place
            .store(if slow { IN_SLOW } else { IN_FAST }, Ordering::Relaxed);
        self.score.store(if slow { MOST } else { 0 }, Ordering::Relaxed);
    }

    pub(super) fn is_slow(&self) -> bool {
        self.place.load(Ordering::Relaxed) == IN_SLOW
    }

    pub(super) fn name(&self) -> &'static str {
        if self.is_slow() { "slow" } else { "fast" }
    }

    /// Counts a call. Two at the same time may count as one: it is an estimate.
    pub(super) fn count(&self, took: Duration) -> Option<Moved> {
        let before = self.score.load(Ordering::Relaxed);
        let overran = took >= FAST;
        if !overran && before == 0 {
            return None;
        }
        let score = if overran {
            (before + OVERRUN).min(MOST)
        } else {
            before - 1
        };
        self.score.store(score, Ordering::Relaxed);
        if score >= MOVES_AT && !self.is_slow() {
            self.score.store(MOST, Ordering::Relaxed);
            self.place.store(IN_SLOW, Ordering::Relaxed);
            Some(Moved::ToSlow)
        } else if score == 0 && self.is_slow() {
            self.place.store(IN_FAST, Ordering::Relaxed);
            Some(Moved::ToFast)
        } else {
            None
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
        assert_eq!(lane.name(), "fast");
    }

    #[test]
    fn slow_calls_in_a_row_move_it_and_quick_ones_bring_it_back() {
        let lane = Lane::new(false);
        assert_eq!(lane.count(SLOW), None);
        assert_eq!(lane.count(SLOW), Some(Moved::ToSlow));
        let back = (0..200)
            .map(|_| lane.count(QUICK))
            .position(|moved| moved == Some(Moved::ToFast));
        assert_eq!(back, Some(63));
    }
}
