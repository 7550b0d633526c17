//! The shrink guard: a half-empty HEIR must not wipe a fleet, so an answer that removes too much must come twice.

use std::time::{Duration, Instant};

use super::outcome::Withheld;

/// Smallest number of policies that the guard looks at.
const SMALLEST_GUARDED: usize = 20;

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

/// Remembers the answer that waits for its confirmation.
#[derive(Debug, Default)]
pub(super) struct ShrinkGuard {
    /// The fingerprint of its content, and when it first came.
    withheld: Option<(u64, Instant)>,
}

impl ShrinkGuard {
    /// Whether so many of the known policies may be removed. `fingerprint` names the content that removes them;
    /// content without one is not confirmed by repetition.
    pub(super) fn allow(
        &mut self,
        removed: usize,
        known: usize,
        guarded: Guarded,
        fingerprint: impl FnOnce() -> Option<u64>,
    ) -> Result<(), Withheld> {
        let percent = usize::from(guarded.max_removed_percent);
        let too_much = known >= SMALLEST_GUARDED && removed * 100 > known * percent;
        if too_much && !guarded.confirmed {
            let shrink = Withheld::Shrink { removed, known };
            let Some(again) = fingerprint() else {
                return Err(shrink);
            };
            match self.withheld {
                Some((first, since)) if first == again => {
                    if since.elapsed() < guarded.confirm_after {
                        return Err(shrink);
                    }
                }
                _ => {
                    self.withheld = Some((again, Instant::now()));
                    return Err(shrink);
                }
            }
        }
        self.withheld = None;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_removal_is_confirmed_by_the_same_answer_later_or_by_an_operator() {
        let guarded = |confirm_after, confirmed| Guarded {
            max_removed_percent: 50,
            confirm_after,
            confirmed,
        };
        let (soon, late) = (
            guarded(Duration::ZERO, false),
            guarded(Duration::from_secs(60), false),
        );
        let shrink = Err(Withheld::Shrink {
            removed: 11,
            known: 20,
        });
        let mut guard = ShrinkGuard::default();
        assert_eq!(guard.allow(10, 20, soon, || Some(1)), Ok(()), "half is allowed");
        assert_eq!(
            guard.allow(19, 19, soon, || Some(1)),
            Ok(()),
            "few are not guarded"
        );
        assert_eq!(guard.allow(11, 20, soon, || Some(1)), shrink);
        assert_eq!(
            guard.allow(11, 20, late, || Some(1)),
            shrink,
            "the same, but too soon"
        );
        assert_eq!(guard.allow(11, 20, soon, || Some(2)), shrink, "another answer");
        assert_eq!(
            guard.allow(11, 20, soon, || None),
            shrink,
            "changes are not repeated"
        );
        assert_eq!(guard.allow(11, 20, soon, || Some(2)), Ok(()));
        assert_eq!(
            guard.allow(11, 20, soon, || Some(2)),
            shrink,
            "confirmed only once"
        );
        assert_eq!(
            guard.allow(11, 20, guarded(Duration::ZERO, true), || None),
            Ok(())
        );
    }
}
