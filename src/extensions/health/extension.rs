//! The health of one extension. It is kept over reloads; a new module begins with a closed breaker and no quarantine.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    breaker::Breaker,
    latency::Latency,
    outcome::{Admitted, Blocked, CallOutcome, Change},
    quarantine::Quarantine,
    report::{BreakerReport, HealthReport, LastTrap},
};
use crate::{
    clock::Timestamp,
    extensions::{config::ExtensionsConfig, manifest::ModuleDigest, scheduling::Lane},
};

/// Crashes that are kept for the operator.
const MAX_TRAPS: usize = 10;
/// How long nothing more is logged of an extension that moves from lane to lane. The metric counts each move.
const QUIET_ABOUT_MOVES_MS: u64 = 600_000;
/// Lines that an extension may log in one second.
const MAX_LOG_LINES_PER_SECOND: usize = 50;

/// The health of one extension.
#[derive(Debug)]
pub struct ExtensionHealth {
    pub(in crate::extensions) lane: Lane,
    running: AtomicU32,
    state: Mutex<State>,
    peak_memory: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// The module that the rest is about.
    module: Option<ModuleDigest>,
    breaker: Breaker,
    quarantine: Quarantine,
    successes: u64,
    failures: u64,
    last_success: Option<Timestamp>,
    last_failure: Option<Timestamp>,
    latency: Latency,
    traps: VecDeque<LastTrap>,
    log_second: u64,
    logged: usize,
    /// When its last move was logged.
    told_of_move: Option<Timestamp>,
}

/// A call that counts as running.
#[derive(Debug)]
pub(in crate::extensions) struct Permit(Arc<ExtensionHealth>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ExtensionHealth {
    pub(super) fn new(starts_slow: bool) -> Self {
        Self {
            lane: Lane::new(starts_slow),
            running: AtomicU32::new(0),
            state: Mutex::default(),
            peak_memory: AtomicU64::new(0),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew where the extension runs another module from now on.
    pub(in crate::extensions) fn runs_module(&self, module: ModuleDigest, starts_slow: bool) {
        let mut state = self.state();
        if state.module != Some(module) {
            if state.module.is_some() {
                state.breaker = Breaker::default();
                state.quarantine = Quarantine::default();
                self.lane.restart(starts_slow);
            }
            state.module = Some(module);
        }
    }

    /// Permits one call, if fewer than `concurrency` are running.
    pub(in crate::extensions) fn permit(self: &Arc<Self>, concurrency: u32) -> Option<Permit> {
        let before = self.running.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self.clone());
        (before < concurrency).then_some(permit)
    }

    /// Admits a call. The caller must [`record`](Self::record) its outcome, or [`withdraw`](Self::withdraw) it.
    pub(in crate::extensions) fn admit(
        &self,
        config: &ExtensionsConfig,
        now: Timestamp,
    ) -> Result<Admitted, Blocked> {
        let mut state = self.state();
        let probe = state.quarantine.admit(now)?;
        match state.breaker.admit(&config.breaker, now) {
            Ok(trial) => Ok(Admitted { probe, trial }),
            Err(blocked) => {
                state.quarantine.withdraw(probe);
                Err(blocked)
            }
        }
    }

    /// Takes back an admission, because no call was made.
    pub(in crate::extensions) fn withdraw(&self, admitted: Admitted) {
        let mut state = self.state();
        state.quarantine.withdraw(admitted.probe);
        state.breaker.withdraw(admitted.trial);
    }

    /// Records a call that was not made because its input is too large. The platform counts it as a failure.
    pub(in crate::extensions) fn refused(
        &self,
        config: &ExtensionsConfig,
        now: Timestamp,
        admitted: Admitted,
    ) {
        let mut state = self.state();
        state.quarantine.withdraw(admitted.probe);
        state.count(config, now, false);
        state.breaker.failed(&config.breaker, now, admitted.trial);
    }

    /// Whether a move to another lane is news: one that is about as fast as a lane allows may move every few seconds.
    pub(in crate::extensions) fn is_news_that_it_moved(&self, now: Timestamp) -> bool {
        let mut state = self.state();
        let is_news = state
            .told_of_move
            .is_none_or(|told| now.since(told) >= QUIET_ABOUT_MOVES_MS);
        if is_news {
            state.told_of_move = Some(now);
        }
        is_news
    }

    /// How many of these lines may be logged in this second.
    pub(in crate::extensions) fn may_log(&self, now: Timestamp, lines: usize) -> usize {
        let mut state = self.state();
        let second = now.unix_ms / 1_000;
        if state.log_second != second {
            state.log_second = second;
            state.logged = 0;
        }
        let allowed = lines.min(MAX_LOG_LINES_PER_SECOND.saturating_sub(state.logged));
        state.logged += allowed;
        allowed
    }

    /// Records a call: how long it took, its memory, its outcome, and the tenant and the policy that made it.
    pub(in crate::extensions) fn record(
        &self,
        config: &ExtensionsConfig,
        (admitted, now): (Admitted, Timestamp),
        took: Duration,
        memory_bytes: usize,
        outcome: &CallOutcome<'_>,
        (tenant_id, policy_id): (&str, &str),
    ) -> Option<Change> {
        self.peak_memory.fetch_max(memory_bytes as u64, Ordering::Relaxed);
        let mut state = self.state();
        state.latency.record(now, took);
        state.count(config, now, matches!(outcome, CallOutcome::Success));
        let Admitted { probe, trial } = admitted;
        match outcome {
            CallOutcome::Success => {
                state.quarantine.succeeded(probe);
                let closed = state.breaker.succeeded(trial);
                closed.or(probe.then_some(Change::Released))
            }
            CallOutcome::Failure => {
                state.quarantine.failed(probe);
                state.breaker.failed(&config.breaker, now, trial)
            }
            CallOutcome::Crash(report) => {
                if state.traps.len() == MAX_TRAPS {
                    state.traps.pop_front();
                }
                state.traps.push_back(LastTrap {
                    at_unix_ms: now.on_the_wall().unix_ms,
                    tenant_id: tenant_id.to_owned(),
                    policy_id: policy_id.to_owned(),
                    report: (*report).clone(),
                });
                let opened = state.breaker.failed(&config.breaker, now, trial);
                state.quarantine.crashed(config, now, probe).or(opened)
            }
        }
    }

    /// Ends a quarantine and closes the breaker.
    pub fn release(&self) {
        let mut state = self.state();
        state.quarantine = Quarantine::default();
        state.breaker = Breaker::default();
    }

    /// The last crashes, the oldest first.
    pub fn traps(&self) -> Vec<LastTrap> {
        self.state().traps.iter().cloned().collect()
    }

    /// How the extension fares, as the platform reports it.
    pub fn report(&self, id: &str, now: Timestamp) -> HealthReport {
        let state = self.state();
        let total = state.successes + state.failures;
        #[expect(clippy::cast_precision_loss, reason = "a share of counts below 2^52")]
        let success_rate = if total == 0 {
            1.0
        } else {
            state.successes as f64 / total as f64
        };
        let status = match success_rate {
            rate if rate >= 0.95 => "healthy",
            rate if rate >= 0.80 => "degraded",
            _ => "unhealthy",
        };
        let latency = state.latency.report(now);
        let unix_ms =
            |timestamp: Option<Timestamp>| timestamp.map(|timestamp| timestamp.on_the_wall().unix_ms);
        HealthReport {
            extension_id: id.to_owned(),
            status,
            success_rate,
            successes: state.successes,
            failures: state.failures,
            avg_latency_ms: latency.avg_ms,
            p50_latency_ms: latency.p50_ms,
            p95_latency_ms: latency.p95_ms,
            p99_latency_ms: latency.p99_ms,
            last_success: unix_ms(state.last_success),
            last_failure: unix_ms(state.last_failure),
            lane: self.lane.place().as_str(),
            running: self.running.load(Ordering::Relaxed),
            peak_memory_bytes: self.peak_memory.load(Ordering::Relaxed),
            quarantined_until: unix_ms(state.quarantine.until(now)),
        }
    }

    /// The breaker, as the platform reports it.
    pub fn breaker(&self, id: &str, now: Timestamp) -> BreakerReport {
        let state = self.state();
        state.breaker.report(id, state.quarantine.until(now).is_some())
    }
}

impl State {
    fn count(&mut self, config: &ExtensionsConfig, now: Timestamp, success: bool) {
        if success {
            self.successes += 1;
            self.last_success = Some(now);
        } else {
            self.failures += 1;
            self.last_failure = Some(now);
        }
        self.breaker.count(&config.breaker, now, success);
    }
}

#[cfg(test)]
#[path = "extension_tests.rs"]
mod tests;
