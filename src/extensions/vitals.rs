//! How an extension fares: what it is trusted with depends on it. Kept by extension over reloads; a new module starts
//! with a clean breaker.
//!
//! Two things keep an extension from being called. Its **breaker** (off unless configured) minds every failure and opens
//! for a fixed time. Its **quarantine** (always on) minds crashes alone and doubles with each further one.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use serde::Serialize;

use super::{call::CrashReport, config::ExtensionsConfig, lane::Lane, latency::Latency};
use crate::decide::Timestamp;

/// Crashes that are kept for whoever asks.
const TRAPS: usize = 10;
/// Lines that an extension may write in one second.
const LOG_LINES_PER_SECOND: usize = 50;
/// Calls in the window before a rate of failures says anything.
const MINIMUM_VOLUME: u32 = 10;

/// The health of one extension.
#[derive(Debug)]
pub struct Vitals {
    pub(super) lane: Lane,
    running: AtomicU32,
    state: Mutex<State>,
    peak_memory: AtomicU64,
}

#[derive(Debug, Default)]
struct State {
    /// What the module was when this began.
    module: Option<super::module::ModuleDigest>,
    breaker: Breaker,
    quarantine: Quarantine,
    window: VecDeque<Second>,
    failures_in_row: u32,
    successes: u64,
    failures: u64,
    last_success: Option<Timestamp>,
    last_failure: Option<Timestamp>,
    latency: Latency,
    traps: VecDeque<LastTrap>,
    log_second: u64,
    logged: usize,
}

#[derive(Debug, Default, Clone, Copy)]
struct Second {
    second: u64,
    successes: u32,
    failures: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Breaker {
    #[default]
    Closed,
    Open {
        since: Timestamp,
    },
    HalfOpen {
        tried: u32,
    },
}

#[derive(Debug, Default, Clone, Copy)]
struct Quarantine {
    crashes_in_row: u32,
    /// How often it was quarantined without a success in between.
    times: u32,
    until: Option<Timestamp>,
    /// One call is let through after the pause, and decides.
    probing: bool,
}

/// A call that was let through, and what its outcome decides: that of one which began before decides neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Admitted {
    /// Whether a quarantine ends.
    probe: bool,
    /// Whether a half-open breaker closes.
    trial: bool,
}

/// Why an extension may not be called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Barred {
    BreakerOpen,
    Quarantined,
}

/// What became of a call, as far as health minds.
#[derive(Debug)]
pub(super) enum CallOutcome<'a> {
    Success,
    Failure,
    Crash(&'a CrashReport),
}

/// A crash, for an operator.
#[derive(Debug, Clone, Serialize)]
pub struct LastTrap {
    pub at_unix_ms: u64,
    pub tenant_id: String,
    pub policy_id: String,
    #[serde(flatten)]
    pub report: CrashReport,
}

/// Something that a log line is written for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    BreakerOpened,
    BreakerClosed,
    Quarantined { pause: Duration },
    Released,
}

/// How an operator sees it: the platform's report.
#[derive(Debug, Clone, Serialize)]
pub struct HealthReport {
    pub extension_id: String,
    pub status: &'static str,
    pub success_rate: f64,
    pub successes: u64,
    pub failures: u64,
    pub avg_latency_ms: f64,
    pub p50_latency_ms: f64,
    pub p95_latency_ms: f64,
    pub p99_latency_ms: f64,
    /// Unix milliseconds.
    pub last_success: Option<u64>,
    /// Unix milliseconds.
    pub last_failure: Option<u64>,
    pub lane: &'static str,
    pub running: u32,
    pub peak_memory_bytes: u64,
    /// Unix milliseconds.
    pub quarantined_until: Option<u64>,
}

/// The breaker's part of it.
#[derive(Debug, Clone, Serialize)]
pub struct BreakerReport {
    pub extension_id: String,
    pub state: &'static str,
    /// Unix milliseconds.
    pub opened_at: Option<u64>,
    pub failure_count: u32,
    pub error_rate: f64,
    pub quarantined: bool,
}

/// A call that counts as running.
#[derive(Debug)]
pub(super) struct Permit(Arc<Vitals>);

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Vitals {
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

    /// Another module deserves another chance.
    pub(super) fn runs_module(&self, module: super::module::ModuleDigest, starts_slow: bool) {
        let mut state = self.state();
        if state.module != Some(module) {
            if state.module.is_some() {
                state.breaker = Breaker::Closed;
                state.quarantine = Quarantine::default();
                state.window.clear();
                state.failures_in_row = 0;
                self.lane.restart(starts_slow);
            }
            state.module = Some(module);
        }
    }

    /// One of the calls that may be under way at a time, if there is one left.
    pub(super) fn permit(self: &Arc<Self>, concurrency: u32) -> Option<Permit> {
        let before = self.running.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self.clone());
        (before < concurrency).then_some(permit)
    }

    /// Whether it may be called. Whoever is let through must [`record`](Self::record) what came of it.
    pub(super) fn admit(&self, config: &ExtensionsConfig, now: Timestamp) -> Result<Admitted, Barred> {
        let mut state = self.state();
        let mut admitted = Admitted::default();
        if let Some(until) = state.quarantine.until {
            if now < until || state.quarantine.probing {
                return Err(Barred::Quarantined);
            }
            state.quarantine.probing = true;
            admitted.probe = true;
        }
        if !config.breaker.enabled {
            return Ok(admitted);
        }
        let barred = match &mut state.breaker {
            Breaker::Closed => false,
            Breaker::Open { since } => {
                let over = now.since(*since) >= u64::from(config.breaker.timeout_seconds) * 1_000;
                if over {
                    state.breaker = Breaker::HalfOpen { tried: 1 };
                    admitted.trial = true;
                }
                !over
            }
            Breaker::HalfOpen { tried } => {
                let spent = *tried >= config.breaker.half_open_max_requests;
                if !spent {
                    *tried += 1;
                    admitted.trial = true;
                }
                spent
            }
        };
        if barred {
            if admitted.probe {
                state.quarantine.probing = false;
            }
            return Err(Barred::BreakerOpen);
        }
        Ok(admitted)
    }

    /// Gives back what [`admit`](Self::admit) let through, where no call was made.
    pub(super) fn withdraw(&self, admitted: Admitted) {
        let mut state = self.state();
        if admitted.probe {
            state.quarantine.probing = false;
        }
        if admitted.trial
            && let Breaker::HalfOpen { tried } = &mut state.breaker
        {
            *tried = tried.saturating_sub(1);
        }
    }

    /// Takes note of a call that was not made, because of what it was to be given: a failure, as the platform has it.
    pub(super) fn refused(&self, config: &ExtensionsConfig, now: Timestamp, admitted: Admitted) {
        let mut state = self.state();
        if admitted.probe {
            state.quarantine.probing = false;
        }
        state.count(now, false, config.breaker.window_seconds);
        state.failed(config, now, admitted.trial);
    }

    /// How many of these lines may be written: some at once, and a few a second for ever.
    pub(super) fn may_log(&self, now: Timestamp, lines: usize) -> usize {
        let mut state = self.state();
        let second = now.unix_ms / 1_000;
        if state.log_second != second {
            state.log_second = second;
            state.logged = 0;
        }
        let allowed = lines.min(LOG_LINES_PER_SECOND.saturating_sub(state.logged));
        state.logged += allowed;
        allowed
    }

    /// Takes note of a call.
    pub(super) fn record(
        &self,
        config: &ExtensionsConfig,
        (admitted, now): (Admitted, Timestamp),
        took: Duration,
        memory_bytes: usize,
        outcome: &CallOutcome<'_>,
        whose: (&str, &str),
    ) -> Option<Change> {
        self.peak_memory.fetch_max(memory_bytes as u64, Ordering::Relaxed);
        let mut state = self.state();
        state.latency.record(now, took);
        state.count(
            now,
            matches!(outcome, CallOutcome::Success),
            config.breaker.window_seconds,
        );
        match outcome {
            CallOutcome::Success => state.succeeded(admitted),
            CallOutcome::Failure => {
                if admitted.probe {
                    state.quarantine.probing = false;
                    // A failure is not a crash: the pause is over, and what it would be next stays known.
                    state.quarantine.until = None;
                }
                state.failed(config, now, admitted.trial)
            }
            CallOutcome::Crash(report) => {
                let trap = LastTrap {
                    at_unix_ms: now.unix_ms,
                    tenant_id: whose.0.to_owned(),
                    policy_id: whose.1.to_owned(),
                    report: (*report).clone(),
                };
                if state.traps.len() == TRAPS {
                    state.traps.pop_front();
                }
                state.traps.push_back(trap);
                let opened = state.failed(config, now, admitted.trial);
                state.crashed(config, now, admitted.probe).or(opened)
            }
        }
    }

    /// Ends a quarantine and closes the breaker.
    pub fn lift(&self) {
        let mut state = self.state();
        state.quarantine = Quarantine::default();
        state.breaker = Breaker::Closed;
        state.failures_in_row = 0;
        state.window.clear();
    }

    pub fn traps(&self) -> Vec<LastTrap> {
        self.state().traps.iter().cloned().collect()
    }

    /// As the platform reports it.
    pub fn health(&self, id: &str, now: Timestamp) -> HealthReport {
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
        let unix_ms = |timestamp: Option<Timestamp>| timestamp.map(|timestamp| timestamp.unix_ms);
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
            quarantined_until: unix_ms(state.quarantine.until.filter(|until| *until > now)),
        }
    }

    pub fn breaker(&self, id: &str, now: Timestamp) -> BreakerReport {
        let state = self.state();
        let (name, opened) = match state.breaker {
            Breaker::Closed => ("closed", None),
            Breaker::Open { since } => ("open", Some(since)),
            Breaker::HalfOpen { .. } => ("half_open", None),
        };
        let (successes, failures) = state.counted();
        let total = successes + failures;
        BreakerReport {
            extension_id: id.to_owned(),
            state: name,
            opened_at: opened.map(|timestamp| timestamp.unix_ms),
            failure_count: state.failures_in_row,
            error_rate: if total == 0 {
                0.0
            } else {
                f64::from(failures) / f64::from(total)
            },
            quarantined: state.quarantine.until.is_some_and(|until| until > now),
        }
    }

    /// Whether it is kept from being called, for a gauge.
    pub fn is_barred(&self, now: Timestamp) -> bool {
        let state = self.state();
        matches!(state.breaker, Breaker::Open { .. })
            || state.quarantine.until.is_some_and(|until| until > now)
    }
}

impl State {
    fn count(&mut self, now: Timestamp, success: bool, window_seconds: u32) {
        let second = now.unix_ms / 1_000;
        if success {
            self.successes += 1;
            self.last_success = Some(now);
        } else {
            self.failures += 1;
            self.last_failure = Some(now);
        }
        if self.window.back().is_none_or(|last| last.second != second) {
            self.window.push_back(Second {
                second,
                ..Second::default()
            });
        }
        if let Some(last) = self.window.back_mut() {
            if success {
                last.successes = last.successes.saturating_add(1);
            } else {
                last.failures = last.failures.saturating_add(1);
            }
        }
        let oldest = second.saturating_sub(u64::from(window_seconds));
        while self
            .window
            .front()
            .is_some_and(|first| first.second <= oldest && first.second != second)
        {
            self.window.pop_front();
        }
    }

    fn counted(&self) -> (u32, u32) {
        let add = |(successes, failures): (u32, u32), second: &Second| {
            (
                successes.saturating_add(second.successes),
                failures.saturating_add(second.failures),
            )
        };
        self.window.iter().fold((0, 0), add)
    }

    fn succeeded(&mut self, admitted: Admitted) -> Option<Change> {
        self.failures_in_row = 0;
        if self.quarantine.until.is_none() || admitted.probe {
            self.quarantine = Quarantine::default();
        }
        if admitted.trial && matches!(self.breaker, Breaker::HalfOpen { .. }) {
            self.breaker = Breaker::Closed;
            self.window.clear();
            return Some(Change::BreakerClosed);
        }
        admitted.probe.then_some(Change::Released)
    }

    fn failed(&mut self, config: &ExtensionsConfig, now: Timestamp, trial: bool) -> Option<Change> {
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        if !config.breaker.enabled {
            return None;
        }
        let opens = match self.breaker {
            Breaker::HalfOpen { .. } => trial,
            Breaker::Open { .. } => false,
            Breaker::Closed => {
                let (successes, failures) = self.counted();
                let total = successes.saturating_add(failures);
                let rate = f64::from(failures) / f64::from(total.max(1));
                self.failures_in_row >= config.breaker.failure_threshold
                    || (total >= MINIMUM_VOLUME && rate >= config.breaker.error_rate_threshold)
            }
        };
        opens.then(|| {
            self.breaker = Breaker::Open { since: now };
            Change::BreakerOpened
        })
    }

    fn crashed(&mut self, config: &ExtensionsConfig, now: Timestamp, probe: bool) -> Option<Change> {
        let quarantine = &mut self.quarantine;
        quarantine.crashes_in_row = quarantine.crashes_in_row.saturating_add(1);
        if probe {
            quarantine.probing = false;
        } else if quarantine.crashes_in_row < config.quarantine_after || quarantine.until.is_some() {
            // The second: a call that was under way when the quarantine began.
            return None;
        }
        let doubled = config
            .quarantine_ms
            .saturating_mul(1_u64 << quarantine.times.min(32));
        let pause = doubled.min(config.max_quarantine_ms);
        quarantine.times = quarantine.times.saturating_add(1);
        quarantine.until = Some(Timestamp::from_unix_ms(now.unix_ms.saturating_add(pause)));
        Some(Change::Quarantined {
            pause: Duration::from_millis(pause),
        })
    }
}

#[cfg(test)]
#[path = "vitals_tests.rs"]
mod tests;
