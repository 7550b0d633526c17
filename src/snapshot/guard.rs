//! The shrink guard: a half-empty HEIR must not wipe a fleet, so an answer that removes too much must come twice.

use std::{
    collections::{HashMap, VecDeque},
    time::{Duration, Instant},
};

use super::outcome::Withheld;
use crate::policy::TenantId;

/// Smallest number of policies that the guard looks at.
const SMALLEST_GUARDED: usize = 20;

/// Removals within this time count as one: a HEIR that loses its policies bit by bit loses them all the same.
const WINDOW: Duration = Duration::from_secs(300);

/// What the shrink guard allows.
#[derive(Debug, Clone, Copy)]
pub struct Guarded {
    /// Percentage of the known policies that one answer may remove without a confirmation.
    pub max_removed_percent: u8,
    /// How much later the same answer must come again to count as its confirmation. Without it, a client's list
    /// would confirm within a millisecond what a HEIR that is being filled said.
    pub confirm_after: Duration,
    /// An operator has confirmed the removal.
    pub confirmed: bool,
}

/// Remembers what was removed, and the answers that wait for their confirmation.
#[derive(Debug, Default)]
pub(super) struct ShrinkGuard {
    /// The removals of the last while: when, and how many.
    removals: VecDeque<(Instant, usize)>,
    /// What each kind of answer would remove, by its fingerprint, and when that first came: an answer about
    /// everything, or about one tenant.
    withheld: HashMap<Option<TenantId>, (u64, Instant)>,
}

impl ShrinkGuard {
    /// Whether so many of the known policies may be removed. `scope` is the tenant that the answer is about, if it is
    /// about one; `fingerprint` names what is removed, and what has none is not confirmed by repetition.
    pub(super) fn allow(
        &mut self,
        scope: Option<&TenantId>,
        removed: usize,
        known: usize,
        guarded: Guarded,
        fingerprint: impl FnOnce() -> Option<u64>,
    ) -> Result<(), Withheld> {
        let now = Instant::now();
        while self.removals.front().is_some_and(|(at, _)| *at + WINDOW < now) {
            self.removals.pop_front();
        }
        let before: usize = self.removals.iter().map(|(_, removed)| removed).sum();
        let (all, of) = (before + removed, before + known);
        let percent = usize::from(guarded.max_removed_percent);
        let too_much = removed > 0 && of >= SMALLEST_GUARDED && all * 100 > of * percent;
        if !too_much {
            if removed > 0 {
                self.removals.push_back((now, removed));
            }
            self.withheld.remove(&scope.cloned());
            return Ok(());
        }
        if !guarded.confirmed {
            let shrink = Withheld::Shrink {
                removed: all,
                known: of,
            };
            let Some(again) = fingerprint() else {
                return Err(shrink);
            };
            let withheld = self.withheld.entry(scope.cloned()).or_insert((again, now));
            if withheld.0 != again {
                *withheld = (again, now);
                return Err(shrink);
            }
            if withheld.1 == now || now.duration_since(withheld.1) < guarded.confirm_after {
                return Err(shrink);
            }
        }
        // What was confirmed is what there is: later removals are counted from here.
        self.removals.clear();
        self.withheld.clear();
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn guarded(confirm_after: Duration, confirmed: bool) -> Guarded {
        Guarded {
            max_removed_percent: 50,
            confirm_after,
            confirmed,
        }
    }

    #[test]
    fn a_removal_is_confirmed_by_the_same_answer_later_or_by_an_operator() {
        let (soon, late) = (
            guarded(Duration::ZERO, false),
            guarded(Duration::from_secs(60), false),
        );
        let shrink = Err(Withheld::Shrink {
            removed: 11,
            known: 20,
        });
        let fresh = ShrinkGuard::default;
        assert_eq!(
            fresh().allow(None, 10, 20, soon, || Some(1)),
            Ok(()),
            "half is allowed"
        );
        assert_eq!(
            fresh().allow(None, 19, 19, soon, || Some(1)),
            Ok(()),
            "few are not guarded"
        );
        let mut guard = fresh();
        assert_eq!(guard.allow(None, 11, 20, soon, || Some(1)), shrink);
        assert_eq!(
            guard.allow(None, 11, 20, late, || Some(1)),
            shrink,
            "the same, but too soon"
        );
        assert_eq!(
            guard.allow(None, 11, 20, soon, || Some(2)),
            shrink,
            "another answer"
        );
        assert_eq!(
            guard.allow(None, 11, 20, soon, || None),
            shrink,
            "changes are not repeated"
        );
        let tenant = TenantId::parse("t").unwrap();
        assert_eq!(
            guard.allow(Some(&tenant), 11, 20, soon, || Some(3)),
            shrink,
            "an answer about a tenant is none about everything"
        );
        assert_eq!(guard.allow(None, 11, 20, soon, || Some(2)), Ok(()));
        assert_eq!(
            guard.allow(None, 11, 20, soon, || Some(2)),
            shrink,
            "confirmed only once"
        );
        assert_eq!(
            guard.allow(None, 11, 20, guarded(Duration::ZERO, true), || None),
            Ok(())
        );
    }

    #[test]
    fn many_small_removals_are_one() {
        let soon = guarded(Duration::ZERO, false);
        let mut guard = ShrinkGuard::default();
        for removed in 0..5 {
            assert_eq!(guard.allow(None, 1, 10 - removed, soon, || Some(1)), Ok(()));
        }
        let mut guard = ShrinkGuard::default();
        for removed in 0..10 {
            assert_eq!(guard.allow(None, 1, 20 - removed, soon, || Some(1)), Ok(()));
        }
        let shrink = Err(Withheld::Shrink {
            removed: 11,
            known: 20,
        });
        assert_eq!(guard.allow(None, 1, 10, soon, || Some(1)), shrink);
        assert_eq!(
            guard.allow(None, 0, 10, soon, || Some(1)),
            Ok(()),
            "nothing is removed"
        );
    }
}
