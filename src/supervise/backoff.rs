//! How soon a worker that died is started again.

use std::time::{Duration, Instant};

/// The longest pause.
const LONGEST: Duration = Duration::from_secs(1);

/// A worker that has been ready for this long counts as sound: the next one is started at once. One that dies of what it
/// is asked may live longer, and costs no more than it is asked for.
const SOUND: Duration = Duration::from_secs(1);

/// The pauses 0, 50, 100, 200 … 1 000 ms.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The pause after the death of a worker that was ready since `ready`, if it was.
    pub(super) fn next(&mut self, ready: Option<Instant>) -> Duration {
        if ready.is_some_and(|ready| ready.elapsed() >= SOUND) {
            self.failures = 0;
        }
        let pause = match self.failures {
            0 => Duration::ZERO,
            failures => Duration::from_millis(25 << failures.min(6)).min(LONGEST),
        };
        self.failures += 1;
        pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_a_second_and_begin_anew_after_a_sound_worker() {
        let mut backoff = Backoff::default();
        let pauses: Vec<_> = (0..8).map(|_| backoff.next(None).as_millis()).collect();
        assert_eq!(pauses, [0, 50, 100, 200, 400, 800, 1_000, 1_000]);
        let Some(long_ago) = Instant::now().checked_sub(SOUND) else {
            return;
        };
        assert_eq!(backoff.next(Some(Instant::now())).as_millis(), 1_000);
        assert_eq!(backoff.next(Some(long_ago)).as_millis(), 0);
    }
}
