//! What the calls to HEIR say of it: whether it answers, whether it is left alone, and when it is asked again.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use tokio::sync::watch;

use super::{
    answer::is_unauthorized,
    breaker::{Breaker, BreakerState, Refused},
    config::BreakerConfig,
    error::HeirError,
    metrics::{HeirCall, HeirMetrics},
};

/// What may keep a call from being made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The breaker, and a pause that HEIR asked for: the call is a client's, who shall not wait in vain.
    Breaker,
    /// Only a pause that HEIR asked for: the refresher finds out by this call whether HEIR is back.
    Always,
    /// Nothing: HEIR is asked for its health.
    Probe,
}

/// What is known of HEIR from the calls to it.
#[derive(Debug)]
pub struct Availability {
    breaker: Breaker,
    up: watch::Sender<bool>,
    /// HEIR has failed since it last answered.
    has_failed: AtomicBool,
    /// Counts what makes a call that waits for its answer worth another attempt: HEIR is back, or has moved.
    news: watch::Sender<u64>,
    /// Counts how often HEIR has moved to another address.
    moves: watch::Sender<u64>,
    /// HEIR refused the last call that needed a permission.
    unauthorized: AtomicBool,
    /// When the refresher asks again, whatever the breaker says.
    next_attempt: Mutex<Option<Instant>>,
    metrics: Arc<HeirMetrics>,
}

impl Availability {
    /// Nothing is known yet.
    pub(super) fn new(breaker: BreakerConfig, metrics: Arc<HeirMetrics>) -> Self {
        Self {
            breaker: Breaker::new(breaker),
            up: watch::Sender::new(false),
            has_failed: AtomicBool::new(false),
            news: watch::Sender::new(0),
            moves: watch::Sender::new(0),
            unauthorized: AtomicBool::new(false),
            next_attempt: Mutex::default(),
            metrics,
        }
    }

    /// The state of the breaker.
    pub fn breaker_state(&self) -> BreakerState {
        self.breaker.state(Instant::now())
    }

    /// Whether HEIR refused the last call that needed a permission: the token or the certificate is not valid there.
    pub fn is_unauthorized(&self) -> bool {
        self.unauthorized.load(Relaxed)
    }

    /// The refresher asks again at this time, whatever the breaker says: others need not wait for longer than that.
    pub fn announce_attempt(&self, at: Instant) {
        *self.next_attempt.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// Whether HEIR answered the last call, and a way to wait for that to change.
    pub fn up(&self) -> watch::Receiver<bool> {
        self.up.subscribe()
    }

    /// Whether HEIR answered the last call.
    pub fn is_up(&self) -> bool {
        *self.up.borrow()
    }

    /// Changes when a call that waits for its answer is worth another attempt: HEIR is back, or has moved.
    pub fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Changes when HEIR has moved to another address: what failed at the one before is worth another attempt.
    pub fn moves(&self) -> watch::Receiver<u64> {
        self.moves.subscribe()
    }

    /// Whether HEIR has failed since it last answered.
    pub(super) fn has_failed(&self) -> bool {
        self.has_failed.load(Relaxed)
    }

    /// Asks to make a call.
    ///
    /// # Errors
    /// When HEIR is to be left alone, and for how long.
    pub(super) fn admit(&self, admission: Admission, now: Instant) -> Result<(), Duration> {
        let admitted = match admission {
            Admission::Breaker => self.breaker.admit(now),
            Admission::Always => self.breaker.admit_always(now),
            Admission::Probe => Ok(()),
        };
        admitted.map_err(|refused| match refused {
            Refused::AskedFor(left) => left,
            Refused::Open(left) => {
                let next = *self.next_attempt.lock().unwrap_or_else(PoisonError::into_inner);
                next.filter(|next| *next > now)
                    .map_or(left, |next| left.min(next - now))
            }
        })
    }

    /// For a call that the breaker admitted.
    pub(super) fn trial(&self) -> Trial<'_> {
        Trial(&self.breaker)
    }

    /// HEIR has another address.
    pub(super) fn moved(&self) {
        self.moves.send_modify(|count| *count += 1);
        self.news.send_modify(|count| *count += 1);
    }

    /// HEIR asked for a pause.
    pub(super) fn pause(&self, pause: Duration) {
        self.breaker.pause(Instant::now(), pause);
        self.note_state(false);
    }

    /// HEIR answered, and not to say that it cannot.
    pub(super) fn answered(&self, call: HeirCall, status: StatusCode) {
        if call.is_forwarded() {
            // What a client may not do says nothing about what this process may.
        } else if is_unauthorized(status) {
            self.unauthorized.store(true, Relaxed);
        } else if call != HeirCall::Health && (status.is_success() || status == StatusCode::NOT_MODIFIED) {
            // A health check usually needs no permission, so it says nothing about one.
            self.unauthorized.store(false, Relaxed);
        }
        self.breaker.success();
        self.note_state(true);
    }

    /// HEIR is not healthy by its own account.
    pub(super) fn unhealthy(&self) {
        self.breaker.failure(Instant::now());
        self.note_state(false);
    }

    /// A call failed. Returns whether that says something of HEIR.
    pub(super) fn failed(&self, call: HeirCall, error: &HeirError) -> bool {
        // What a client asks for is its own choice, and so are its time-outs and its errors; that no connection can be
        // made is not.
        let of_the_client = call.is_forwarded() && !matches!(error, HeirError::Connect(_));
        let of_this_process = matches!(error, HeirError::Paused { .. } | HeirError::PoolExhausted);
        if of_the_client || of_this_process || !error.is_away() {
            self.breaker.abandon();
            return false;
        }
        self.unhealthy();
        true
    }

    fn note_state(&self, up: bool) {
        self.metrics.breaker_state.set(self.breaker_state().as_number());
        self.metrics.up.set(i64::from(up && !self.is_unauthorized()));
        if self.has_failed.swap(!up, Relaxed) && up {
            self.news.send_modify(|count| *count += 1);
        }
        self.up.send_if_modified(|was| std::mem::replace(was, up) != up);
    }
}

/// A call that the breaker admitted. One that is given up, because its caller left, must not keep others from trying.
#[derive(Debug)]
pub(super) struct Trial<'a>(&'a Breaker);

impl Trial<'_> {
    /// The breaker knows what came of the call.
    pub(super) fn ended(self) {
        std::mem::forget(self);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        self.0.abandon();
    }
}
