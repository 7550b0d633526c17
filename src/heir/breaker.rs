//! The breaker towards HEIR: a state machine over the time it is given.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::config::BreakerConfig;

/// Where the breaker stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Lets calls pass.
    Closed,
    /// Refuses calls until the instant.
    Open {
        /// The end of the pause.
        until: Instant,
    },
    /// Lets calls pass one at a time until enough have succeeded.
    HalfOpen,
}

impl BreakerState {
    /// As the admin page names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open { .. } => "open",
            Self::HalfOpen => "half_open",
        }
    }

    /// As the metric shows it.
    pub const fn as_number(self) -> i64 {
        match self {
            Self::Closed => 0,
            Self::Open { .. } => 1,
            Self::HalfOpen => 2,
        }
    }
}

#[derive(Debug)]
struct Inner {
    state: BreakerState,
    failures: u32,
    successes: u32,
    /// While half open: when the call that is trying HEIR out began, so that one whose end is never reported
    /// does not keep others out for ever.
    trial: Option<Instant>,
    /// The end of a pause that HEIR asked for. Kept apart from the state: no success shortens it.
    asked: Option<Instant>,
}

impl Inner {
    /// What is left of the pause that HEIR asked for.
    fn asked_pause(&self, now: Instant) -> Option<Duration> {
        let left = self.asked?.saturating_duration_since(now);
        (!left.is_zero()).then_some(left)
    }
}

/// Why a call is not made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// The breaker is open for so much longer.
    Open(Duration),
    /// HEIR asked for a pause, of which so much is left.
    AskedFor(Duration),
}

/// Opens after failures in a row, tries again after a while, closes after successes in a row.
#[derive(Debug)]
pub struct Breaker {
    config: BreakerConfig,
    inner: Mutex<Inner>,
}

impl Breaker {
    /// A closed breaker.
    pub fn new(config: BreakerConfig) -> Self {
        let inner = Inner {
            state: BreakerState::Closed,
            failures: 0,
            successes: 0,
            trial: None,
            asked: None,
        };
        Self {
            config,
            inner: Mutex::new(inner),
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where it stands at this moment. A pause that HEIR asked for shows as open.
    pub fn state(&self, now: Instant) -> BreakerState {
        let inner = self.lock();
        match (inner.state, inner.asked_pause(now)) {
            (BreakerState::Closed | BreakerState::HalfOpen, Some(left)) => {
                BreakerState::Open { until: now + left }
            }
            (state, _) => state,
        }
    }

    /// Asks to make a call although the breaker may be open: only a pause that HEIR asked for refuses it.
    pub fn admit_always(&self, now: Instant) -> Result<(), Refused> {
        self.lock()
            .asked_pause(now)
            .map_or(Ok(()), |left| Err(Refused::AskedFor(left)))
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// When HEIR is to be left alone, and for how long.
    pub fn admit(&self, now: Instant) -> Result<(), Refused> {
        let mut inner = self.lock();
        if let Some(left) = inner.asked_pause(now) {
            return Err(Refused::AskedFor(left));
        }
        match inner.state {
            BreakerState::Closed => Ok(()),
            BreakerState::Open { until } if now < until => Err(Refused::Open(until - now)),
            BreakerState::Open { .. } => {
                inner.state = BreakerState::HalfOpen;
                inner.successes = 0;
                inner.trial = Some(now);
                Ok(())
            }
            BreakerState::HalfOpen => {
                let open = Duration::from_millis(self.config.open_ms);
                match inner.trial {
                    Some(began) if now < began + open => Err(Refused::Open(open.min(Duration::from_secs(1)))),
                    _ => {
                        inner.trial = Some(now);
                        Ok(())
                    }
                }
            }
        }
    }

    /// Reports that HEIR answered.
    pub fn success(&self) {
        let mut inner = self.lock();
        inner.failures = 0;
        inner.trial = None;
        if inner.state == BreakerState::Closed {
            return;
        }
        inner.successes += 1;
        if inner.successes >= self.config.success_threshold {
            inner.state = BreakerState::Closed;
        } else {
            inner.state = BreakerState::HalfOpen;
        }
    }

    /// Reports that HEIR did not answer, or answered that it cannot.
    pub fn failure(&self, now: Instant) {
        let mut inner = self.lock();
        inner.trial = None;
        inner.successes = 0;
        inner.failures = inner.failures.saturating_add(1);
        let again = inner.state == BreakerState::HalfOpen;
        if again || (inner.state == BreakerState::Closed && inner.failures >= self.config.failure_threshold) {
            inner.state = BreakerState::Open {
                until: now + Duration::from_millis(self.config.open_ms),
            };
        }
    }

    /// Reports that a call ended without saying anything of HEIR, such as one whose caller left: the next one may try HEIR
    /// out in its place.
    pub fn abandon(&self) {
        self.lock().trial = None;
    }

    /// HEIR asked for a pause of this length, which does not shorten one that it asked for before.
    pub fn pause(&self, now: Instant, pause: Duration) {
        let mut inner = self.lock();
        inner.asked = inner.asked.max(Some(now + pause));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OPEN: Duration = Duration::from_millis(1_000);

    fn breaker() -> Breaker {
        Breaker::new(BreakerConfig {
            failure_threshold: 3,
            open_ms: 1_000,
            success_threshold: 2,
        })
    }

    #[test]
    fn failures_in_a_row_open_it_and_successes_close_it() {
        let (breaker, start) = (breaker(), Instant::now());
        for _ in 0..10 {
            breaker.failure(start);
            breaker.failure(start);
            breaker.success();
        }
        assert_eq!(breaker.state(start), BreakerState::Closed);
        for _ in 0..3 {
            breaker.failure(start);
        }
        assert_eq!(breaker.admit(start), Err(Refused::Open(OPEN)));
        assert_eq!(breaker.admit(start + OPEN), Ok(()));
        assert_eq!(breaker.state(start + OPEN), BreakerState::HalfOpen);
        assert!(breaker.admit(start + OPEN).is_err(), "one trial at a time");
        breaker.success();
        assert_eq!(breaker.state(start + OPEN), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(start + OPEN), Ok(()));
        breaker.success();
        assert_eq!(breaker.state(start + OPEN), BreakerState::Closed);
    }

    #[test]
    fn a_failed_trial_opens_it_again_and_a_lost_one_does_not_block() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..3).for_each(|_| breaker.failure(start));
        breaker.admit(start + OPEN).unwrap();
        breaker.failure(start + OPEN);
        assert_eq!(breaker.admit(start + OPEN), Err(Refused::Open(OPEN)));
        breaker.admit(start + 2 * OPEN).unwrap();
        assert!(breaker.admit(start + 2 * OPEN).is_err());
        assert_eq!(breaker.admit(start + 3 * OPEN), Ok(()));
    }

    #[test]
    fn a_trial_that_is_given_up_makes_room_for_another() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..3).for_each(|_| breaker.failure(start));
        breaker.admit(start + OPEN).unwrap();
        assert!(breaker.admit(start + OPEN).is_err());
        breaker.abandon();
        assert_eq!(breaker.state(start + OPEN), BreakerState::HalfOpen);
        assert_eq!(breaker.admit(start + OPEN), Ok(()));
    }

    #[test]
    fn hostile_45_a_short_retry_after_does_not_shorten_a_pause() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..3).for_each(|_| breaker.failure(start));
        breaker.pause(start, Duration::ZERO);
        assert_eq!(breaker.admit(start), Err(Refused::Open(OPEN)));
        breaker.pause(start, 2 * OPEN);
        breaker.pause(start, OPEN);
        assert_eq!(breaker.admit(start), Err(Refused::AskedFor(2 * OPEN)));
    }

    #[test]
    fn a_success_from_outside_ends_an_opening_early() {
        let (breaker, start) = (breaker(), Instant::now());
        (0..3).for_each(|_| breaker.failure(start));
        assert_eq!(breaker.admit(start), Err(Refused::Open(OPEN)));
        assert_eq!(breaker.admit_always(start), Ok(()));
        breaker.success();
        assert_eq!(breaker.admit(start), Ok(()));
        breaker.success();
        assert_eq!(breaker.state(start), BreakerState::Closed);
    }

    #[test]
    fn no_success_shortens_a_pause_that_was_asked_for() {
        let (breaker, start) = (breaker(), Instant::now());
        breaker.pause(start, OPEN);
        (0..5).for_each(|_| breaker.success());
        assert_eq!(breaker.state(start), BreakerState::Open { until: start + OPEN });
        assert_eq!(breaker.admit(start), Err(Refused::AskedFor(OPEN)));
        assert_eq!(breaker.admit_always(start), Err(Refused::AskedFor(OPEN)));
        assert_eq!(breaker.admit(start + OPEN), Ok(()));
        assert_eq!(breaker.state(start + OPEN), BreakerState::Closed);
    }
}
