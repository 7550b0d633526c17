//! The refresh loop: one refresh after the other, at the pace that HEIR's abilities and health allow.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio_util::sync::CancellationToken;

use super::{
    detected::Pass,
    outcome::{Outcome, RefreshError},
    refresher::Refresher,
};
use crate::{
    heir::{Admission, Backoff, HeirError, Level, RetryConfig},
    policy::TenantId,
    snapshot::Withheld,
};

impl Refresher {
    /// Refreshes now. What HEIR had when this was called is in memory when it returns; callers that come at the
    /// same time share one refresh.
    pub async fn refresh_now(self: &Arc<Self>, confirm: bool) -> Result<Outcome, RefreshError> {
        let this = self.clone();
        let pass = Pass { confirm, ..Pass::OWN };
        to_the_end(async move { this.refresh_in_turn(pass).await }).await
    }

    async fn refresh_in_turn(&self, pass: Pass) -> Result<Outcome, RefreshError> {
        let asked = Instant::now();
        let mut detected = self.detected.lock().await;
        if !pass.confirm && detected.last_began.is_some_and(|began| began > asked) {
            return Ok(Outcome::Unchanged);
        }
        let result = self.pass(&mut detected, pass).await;
        drop(detected);
        self.record(&result);
        result
    }

    /// Takes what HEIR has now of one tenant, by the call that this HEIR has for it. Where it has none, memory is
    /// all there is.
    pub async fn refresh_list(self: &Arc<Self>, tenant: &TenantId) -> Result<Outcome, RefreshError> {
        let timeout = self.client.timeout();
        let (this, tenant) = (self.clone(), tenant.clone());
        let pass = Pass {
            admission: Admission::Breaker,
            ..Pass::OWN
        };
        let refresh = async move {
            // What waits here ends when its caller gives up. Only a refresh whose turn has come goes on without it.
            let level = this.detected.lock().await.level;
            match level {
                None | Some(Level::Changes | Level::Snapshot) => {
                    to_the_end(async move { this.refresh_in_turn(pass).await }).await
                }
                Some(Level::List) => {
                    to_the_end(async move {
                        let mut detected = this.detected.lock().await;
                        this.refresh_tenant(&mut detected, &tenant, pass).await
                    })
                    .await
                }
                Some(Level::Single) => Ok(Outcome::Unchanged),
            }
        };
        // Another refresh may be at it, with a HEIR that sends slowly; memory is there now.
        let elapsed = |_elapsed| HeirError::Timeout { after: timeout };
        tokio::time::timeout(timeout, refresh).await.map_err(elapsed)?
    }

    /// Refreshes until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let seed = self
            .config
            .load()
            .jitter_seed
            .unwrap_or_else(|| fastrand::u64(..));
        let mut random = fastrand::Rng::with_seed(seed);
        let mut backoff = self.backoff(seed);
        let mut away = Self::backoff_away(seed);
        let mut moves = self.client.availability().moves();
        loop {
            let began = Instant::now();
            let (result, hasty) = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                step = self.step() => step,
            };
            self.record(&result);
            let pause = match &result {
                // Longer each time, so that a HEIR that does not wait, or makes no sense, is not asked without end.
                Ok(_) if hasty => Some(backoff.next_pause()),
                Ok(_) => {
                    backoff = self.backoff(random.u64(..));
                    away = Self::backoff_away(random.u64(..));
                    self.pause_after_success(&mut random).await
                }
                // HEIR said when to come back: not much later than that, and not all at once.
                Err(RefreshError::Heir(HeirError::Paused { retry_in })) => {
                    Some(*retry_in + Duration::from_millis(random.u64(10..500)))
                }
                // The same answer is asked for again at once, as a confirmation; a pause keeps a HEIR that is
                // being filled from confirming its own half-empty state.
                Err(RefreshError::Withheld(Withheld::Shrink { .. })) => Some(self.interval(&mut random)),
                Err(RefreshError::Withheld(_)) => None,
                // Whatever the breaker says: a HEIR that is back must not have to wait for it. From one question to the
                // next, so that one that HEIR leaves unanswered is not followed by silence.
                Err(error) if error.is_away() => {
                    let pause = away.next_pause().saturating_sub(began.elapsed());
                    Some(pause + Duration::from_millis(10))
                }
                Err(_) => Some(backoff.next_pause() + Duration::from_millis(10)),
            };
            let Some(pause) = pause else { continue };
            if result.is_err() {
                self.client
                    .availability()
                    .announce_attempt(Instant::now() + pause);
            }
            let mut up = self.client.availability().up();
            up.mark_unchanged();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                // HEIR has answered another call: no need to wait any longer.
                Ok(_) = up.wait_for(|up| *up), if result.is_err() && !self.client.availability().is_up() => {}
                Ok(()) = moves.changed(), if result.is_err() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// While HEIR is away. The longest pause is most of the time that passes before a HEIR that is back is noticed.
    fn backoff_away(seed: u64) -> Backoff {
        Backoff::new(
            RetryConfig {
                max_attempts: u32::MAX,
                initial_ms: 100,
                factor: 2.0,
                max_ms: 1_700,
            },
            seed,
        )
    }

    /// While HEIR answers, but nothing that could be taken.
    fn backoff(&self, seed: u64) -> Backoff {
        let longest = self.config.load().interval_ms.max(100);
        Backoff::new(
            RetryConfig {
                max_attempts: u32::MAX,
                initial_ms: 100.min(longest),
                factor: 2.0,
                max_ms: longest,
            },
            seed,
        )
    }

    fn interval(&self, random: &mut fastrand::Rng) -> Duration {
        crate::heir::jittered(Duration::from_millis(self.config.load().interval_ms), random)
    }

    async fn pause_after_success(&self, random: &mut fastrand::Rng) -> Option<Duration> {
        let level = self.detected.lock().await.level;
        (level != Some(Level::Changes)).then(|| self.interval(random))
    }

    /// One turn of the loop: waits for changes where HEIR can report them, polls otherwise. With it, whether HEIR
    /// should have waited and did not.
    async fn step(&self) -> (Result<Outcome, RefreshError>, bool) {
        let waits = {
            let detected = self.detected.lock().await;
            detected.level == Some(Level::Changes)
        };
        if waits {
            let (wait, interval) = {
                let config = self.config.load();
                (config.long_poll_timeout_ms, config.interval_ms)
            };
            let began = Instant::now();
            match self.ask_for_changes(Duration::from_millis(wait), Pass::OWN).await {
                Err(error) if error.is_away() => {
                    // The next connection may be to another HEIR: what this one could do is forgotten.
                    self.detected.lock().await.forget_level();
                    return (Err(error), false);
                }
                Err(RefreshError::Withheld(Withheld::Outdated)) => return (Ok(Outcome::Unchanged), false),
                // Another history, a gap, or nonsense: everything is taken anew.
                Err(error) => self.detected.lock().await.note_gap(&error),
                Ok(Outcome::Unchanged) => {
                    let hasty = began.elapsed() < Duration::from_millis(wait.min(interval) / 2);
                    return (Ok(Outcome::Unchanged), hasty);
                }
                changed => return (changed, false),
            }
        }
        let mut detected = self.detected.lock().await;
        (self.pass(&mut detected, Pass::OWN).await, waits)
    }
}

/// Goes on when the caller leaves: a client that hangs up must not leave a refresh half noted.
async fn to_the_end(
    refresh: impl Future<Output = Result<Outcome, RefreshError>> + Send + 'static,
) -> Result<Outcome, RefreshError> {
    match tokio::spawn(refresh).await {
        Ok(result) => result,
        Err(error) => Err(HeirError::Invalid(format!("the refresh failed: {error}")).into()),
    }
}
