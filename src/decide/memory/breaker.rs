//! Provider breakers: one small state machine per tenant and provider.

use serde::Serialize;

use super::{
    classify::CallResult,
    provider_key::{ProviderKey, ProviderName},
    table::Table,
    window::Window,
};
use crate::{
    clock::Timestamp,
    policy::{BreakerSettings, ProviderId, TenantId},
};

/// State of a provider's breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ProviderBreakerState")]
pub enum State {
    /// Calls are admitted, and failures counted.
    Closed,
    /// No call is admitted until the policy's `timeout_ms` has passed.
    Open,
    /// A limited number of trial calls is admitted: enough successes close the breaker, one failure opens it.
    HalfOpen,
}

impl State {
    /// As labels and log lines have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

/// Whether a provider may be called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    /// The breaker admits the call, or there is no breaker.
    Allowed,
    /// The breaker is open, or the trial calls of a half-open one are used up.
    Denied,
}

/// Why a breaker changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Trigger {
    /// A failure took longer than `latency_threshold_ms`; opens.
    LatencyThresholdExceeded,
    /// Failures in a row reached `failure_threshold`; opens.
    FailureThresholdExceeded,
    /// The share of failures in the window reached `error_rate_threshold`; opens.
    ErrorRateThresholdExceeded,
    /// A trial call failed; opens again.
    HalfOpenFailure,
    /// The breaker was open for `timeout_ms`; opens half.
    TimeoutElapsed,
    /// Successes while half open reached `success_threshold`; closes.
    SuccessThresholdMet,
}

impl Trigger {
    /// As labels and log lines have it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LatencyThresholdExceeded => "latency_threshold_exceeded",
            Self::FailureThresholdExceeded => "failure_threshold_exceeded",
            Self::ErrorRateThresholdExceeded => "error_rate_threshold_exceeded",
            Self::HalfOpenFailure => "half_open_failure",
            Self::TimeoutElapsed => "timeout_elapsed",
            Self::SuccessThresholdMet => "success_threshold_met",
        }
    }
}

/// A change of state, for the log and the metrics.
#[derive(Debug, Clone, PartialEq)]
pub struct Transition {
    /// The tenant whose breaker it is.
    pub tenant: TenantId,
    /// The provider that the breaker guards.
    pub provider: ProviderId,
    /// The state before.
    pub from: State,
    /// The state after.
    pub to: State,
    /// Why it changed.
    pub trigger: Trigger,
    /// Failures in a row after the change.
    pub failure_count: u32,
    /// Successes before the change: what closed a half-open breaker.
    pub success_count: u32,
    /// Share of failures in the window before the change, 0–1.
    pub error_rate: f64,
    /// Failures in the window before the change.
    pub window_failures: u32,
    /// Results in the window before the change.
    pub window_total: u32,
    /// The settings under which it changed.
    pub settings: BreakerSettings,
    /// Since the state before began.
    pub elapsed_ms: u64,
}

/// A breaker as an operator sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct BreakerStatus {
    /// The state as it stands: an open breaker becomes half open only with the next call.
    pub state: State,
    /// Unix milliseconds.
    pub state_changed_at: u64,
    /// Milliseconds since the state began.
    pub elapsed_ms: u64,
    /// Milliseconds that the breaker stays open, by its settings.
    pub timeout_ms: u64,
    /// Milliseconds until an open breaker admits trial calls; else 0.
    pub remaining_ms: u64,
    /// Trial calls admitted of the half-open budget.
    pub half_open_calls_count: u32,
    /// Failures in a row.
    pub failure_count: u32,
    /// Successes counted towards `success_threshold`.
    pub success_count: u32,
    /// Share of failures in the window, 0–1; 0 if the window is empty.
    pub error_rate: f64,
    /// Failures in the window.
    pub window_failures: u32,
    /// Results in the window.
    pub window_total: u32,
    /// Since the breaker was made.
    pub total_failures: u64,
    /// Since the breaker was made.
    pub total_successes: u64,
    /// Those of the policy that last chose the provider, else the built-in ones.
    pub settings: BreakerSettings,
}

/// A breaker as it is kept over a restart. Its window is not.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerRecord {
    /// The state as it stands.
    pub state: State,
    /// When the state began.
    pub changed_at: Timestamp,
    /// Those of the policy that last chose the provider, else the built-in ones.
    pub settings: BreakerSettings,
    /// Failures in a row.
    pub failure_count: u32,
    /// Successes counted towards `success_threshold`.
    pub success_count: u32,
    /// Trial calls admitted of the half-open budget.
    pub half_open_calls: u32,
}

#[derive(Debug, Clone)]
struct Breaker {
    state: State,
    changed_at: Timestamp,
    settings: BreakerSettings,
    failure_count: u32,
    success_count: u32,
    half_open_calls: u32,
    /// Half open: since when no result came and no budget was given.
    quiet_since: Timestamp,
    window: Window,
    total_failures: u64,
    total_successes: u64,
}

/// A change of state without the names.
struct Change {
    from: State,
    trigger: Trigger,
    elapsed_ms: u64,
    success_count: u32,
    error_rate: f64,
    window_failures: u32,
    window_total: u32,
}

impl Breaker {
    fn closed(settings: BreakerSettings, now: Timestamp) -> Self {
        Self {
            state: State::Closed,
            changed_at: now,
            settings,
            failure_count: 0,
            success_count: 0,
            half_open_calls: 0,
            quiet_since: now,
            window: Window::default(),
            total_failures: 0,
            total_successes: 0,
        }
    }

    /// A time that goes back must not keep a breaker open for as long.
    fn heed_clock(&mut self, now: Timestamp) {
        self.changed_at = self.changed_at.min(now);
        self.quiet_since = self.quiet_since.min(now);
    }

    fn change(&mut self, to: State, trigger: Trigger, now: Timestamp) -> Change {
        self.window.prune(self.settings.error_rate_window_seconds, now);
        let change = Change {
            from: self.state,
            trigger,
            elapsed_ms: now.since(self.changed_at),
            success_count: self.success_count,
            error_rate: self.window.error_rate(),
            window_failures: self.window.failures(),
            window_total: self.window.total(),
        };
        self.state = to;
        self.changed_at = now;
        self.quiet_since = now;
        self.half_open_calls = 0;
        change
    }

    fn admission(&self, now: Timestamp) -> Admission {
        let allowed = match self.state {
            State::Closed => true,
            State::Open => now.since(self.changed_at) >= self.settings.timeout_ms,
            State::HalfOpen => self.half_open_calls < self.settings.half_open_max_calls || self.is_stuck(now),
        };
        if allowed {
            Admission::Allowed
        } else {
            Admission::Denied
        }
    }

    /// Half open, and the results of the admitted calls never arrived.
    fn is_stuck(&self, now: Timestamp) -> bool {
        now.since(self.quiet_since) >= self.settings.timeout_ms
    }

    fn admit(&mut self, now: Timestamp) -> (Admission, Option<Change>) {
        self.heed_clock(now);
        let mut change = None;
        if self.state == State::Open && now.since(self.changed_at) >= self.settings.timeout_ms {
            change = Some(self.change(State::HalfOpen, Trigger::TimeoutElapsed, now));
            self.failure_count = 0;
            self.success_count = 0;
        }
        if self.state == State::HalfOpen {
            if self.half_open_calls >= self.settings.half_open_max_calls {
                if !self.is_stuck(now) {
                    return (Admission::Denied, change);
                }
                self.half_open_calls = 0;
                self.quiet_since = now;
            }
            self.half_open_calls += 1;
        }
        let admission = if self.state == State::Open {
            Admission::Denied
        } else {
            Admission::Allowed
        };
        (admission, change)
    }

    fn record(&mut self, result: CallResult, latency_ms: Option<u64>, now: Timestamp) -> Option<Change> {
        self.heed_clock(now);
        self.window
            .push(result, self.settings.error_rate_window_seconds, now);
        self.quiet_since = now;
        match result {
            CallResult::Success => {
                self.total_successes += 1;
                match self.state {
                    State::Closed | State::Open => {
                        self.failure_count = 0;
                        None
                    }
                    State::HalfOpen => {
                        self.success_count = self.success_count.saturating_add(1);
                        (self.success_count >= self.settings.success_threshold).then(|| {
                            let change = self.change(State::Closed, Trigger::SuccessThresholdMet, now);
                            self.clear_counts();
                            change
                        })
                    }
                }
            }
            CallResult::Failure => {
                self.total_failures += 1;
                match self.state {
                    State::Closed => {
                        self.failure_count = self.failure_count.saturating_add(1);
                        let trigger = self.opens(latency_ms)?;
                        Some(self.change(State::Open, trigger, now))
                    }
                    State::Open => {
                        self.failure_count = self.failure_count.saturating_add(1);
                        None
                    }
                    State::HalfOpen => {
                        let change = self.change(State::Open, Trigger::HalfOpenFailure, now);
                        self.failure_count = 1;
                        self.success_count = 0;
                        Some(change)
                    }
                }
            }
        }
    }

    fn opens(&self, latency_ms: Option<u64>) -> Option<Trigger> {
        let settings = &self.settings;
        let slow = |limit| latency_ms.is_some_and(|latency| latency > limit);
        if settings.latency_threshold_ms.is_some_and(slow) {
            Some(Trigger::LatencyThresholdExceeded)
        } else if self.failure_count >= settings.failure_threshold {
            Some(Trigger::FailureThresholdExceeded)
        } else if self.window.total() >= settings.error_rate_min_requests
            && self.window.error_rate() >= settings.error_rate_threshold
        {
            Some(Trigger::ErrorRateThresholdExceeded)
        } else {
            None
        }
    }

    /// After closing nothing old may open it again.
    fn clear_counts(&mut self) {
        self.failure_count = 0;
        self.success_count = 0;
        self.half_open_calls = 0;
        self.window = Window::default();
    }

    fn status(&self, now: Timestamp) -> BreakerStatus {
        let (window_failures, window_total) =
            self.window.counts(self.settings.error_rate_window_seconds, now);
        let elapsed_ms = now.since(self.changed_at);
        BreakerStatus {
            state: self.state,
            state_changed_at: self.changed_at.unix_ms,
            elapsed_ms,
            timeout_ms: self.settings.timeout_ms,
            remaining_ms: if self.state == State::Open {
                self.settings.timeout_ms.saturating_sub(elapsed_ms)
            } else {
                0
            },
            half_open_calls_count: self.half_open_calls,
            failure_count: self.failure_count,
            success_count: self.success_count,
            error_rate: super::window::rate(window_failures, window_total),
            window_failures,
            window_total,
            total_failures: self.total_failures,
            total_successes: self.total_successes,
            settings: self.settings,
        }
    }
}

/// All breakers.
#[derive(Debug)]
pub struct Breakers {
    table: Table<ProviderKey, Breaker>,
}

impl Breakers {
    /// Where there would be more than this many, one goes of the tenant that has most: the closed one used longest
    /// ago, and only where none is closed another one.
    pub fn new(providers: usize) -> Self {
        Self {
            table: Table::of_tenants(
                providers,
                |key| Some(&key.0),
                |breaker| breaker.state != State::Closed,
            ),
        }
    }

    /// What `admit` would say, changing nothing that can be seen. A time before those that it knows is heeded: one that is
    /// only peeked at would otherwise stay open until that time has come again.
    pub fn peek(&self, tenant: &TenantId, provider: &str, now: Timestamp) -> Admission {
        self.table
            .change(&ProviderName::new(tenant, provider), None, |breaker| {
                breaker.heed_clock(now);
                breaker.admission(now)
            })
            .unwrap_or(Admission::Allowed)
    }

    /// Asks to call the provider. Opens half an open breaker whose time has come, and uses the half-open budget.
    pub fn admit(
        &self,
        tenant: &TenantId,
        provider: &str,
        now: Timestamp,
    ) -> (Admission, Option<Transition>) {
        let name = ProviderName::new(tenant, provider);
        let answer = self.table.change(&name, Some(now), |breaker| {
            let (admission, change) = breaker.admit(now);
            let told = change.map(|change| transition(tenant, &ProviderId::new(provider), change, breaker));
            (admission, told)
        });
        answer.unwrap_or((Admission::Allowed, None))
    }

    /// Takes back a call that was admitted and will not be made.
    pub fn release(&self, tenant: &TenantId, provider: &str) {
        self.table
            .change(&ProviderName::new(tenant, provider), None, |breaker| {
                if breaker.state == State::HalfOpen {
                    breaker.half_open_calls = breaker.half_open_calls.saturating_sub(1);
                }
            });
    }

    /// Gives a provider its settings; the last policy that chose it wins. Creates a closed breaker where there is none.
    pub fn configure(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        settings: BreakerSettings,
        now: Timestamp,
    ) {
        self.table.change_or_make(
            &ProviderName::new(tenant, provider.as_str()),
            now,
            || ((tenant.clone(), provider.clone()), Breaker::closed(settings, now)),
            |breaker| breaker.settings = settings,
        );
    }

    /// Takes in what became of a call. A provider that no policy has chosen yet gets the built-in settings.
    pub fn record(
        &self,
        tenant: &TenantId,
        provider: &ProviderId,
        result: CallResult,
        latency_ms: Option<u64>,
        now: Timestamp,
    ) -> Option<Transition> {
        self.table.change_or_make(
            &ProviderName::new(tenant, provider.as_str()),
            now,
            || {
                let mut breaker = Breaker::closed(BreakerSettings::built_in(), now);
                breaker.success_count = u32::from(result == CallResult::Success);
                ((tenant.clone(), provider.clone()), breaker)
            },
            |breaker| {
                let change = breaker.record(result, latency_ms, now)?;
                Some(transition(tenant, provider, change, breaker))
            },
        )
    }

    /// State of a breaker as it stands, time not applied. `None`: there is none, which allows.
    pub fn state(&self, tenant: &TenantId, provider: &str) -> Option<State> {
        self.table
            .read(&ProviderName::new(tenant, provider), |breaker| breaker.state)
    }

    /// Everything about a breaker, time not applied to its state.
    pub fn status(&self, tenant: &TenantId, provider: &str, now: Timestamp) -> Option<BreakerStatus> {
        self.table.read(&ProviderName::new(tenant, provider), |breaker| {
            breaker.status(now)
        })
    }

    /// The tenant's breakers, by the names of their providers.
    pub fn list(&self, tenant: &TenantId, now: Timestamp) -> Vec<(ProviderId, BreakerStatus)> {
        let mut found = Vec::new();
        self.table.each(|key, breaker| {
            if key.0 == *tenant {
                found.push((key.1.clone(), breaker.status(now)));
            }
        });
        found.sort_unstable_by(|a, b| a.0.cmp(&b.0));
        found
    }

    /// Closes a breaker; its window stays. Says what it was, or `None` where there is none.
    pub fn force_recovery(&self, tenant: &TenantId, provider: &str, now: Timestamp) -> Option<State> {
        self.force(tenant, provider, now, State::Closed, |breaker| {
            breaker.failure_count = 0;
            breaker.success_count = 0;
        })
    }

    /// Opens a breaker half, with its whole budget and an empty window. Says what it was.
    pub fn force_recovery_to_half_open(
        &self,
        tenant: &TenantId,
        provider: &str,
        now: Timestamp,
    ) -> Option<State> {
        self.force(tenant, provider, now, State::HalfOpen, |breaker| {
            breaker.half_open_calls = 0;
            breaker.success_count = 0;
            breaker.window = Window::default();
        })
    }

    /// Closes a breaker and clears everything that it counted. Says what it was.
    pub fn reset_recovery_state(&self, tenant: &TenantId, provider: &str, now: Timestamp) -> Option<State> {
        self.force(tenant, provider, now, State::Closed, |breaker| {
            breaker.clear_counts();
            breaker.total_failures = 0;
            breaker.total_successes = 0;
        })
    }

    fn force(
        &self,
        tenant: &TenantId,
        provider: &str,
        now: Timestamp,
        to: State,
        clear: impl FnOnce(&mut Breaker),
    ) -> Option<State> {
        let name = ProviderName::new(tenant, provider);
        self.table.change(&name, Some(now), |breaker| {
            clear(breaker);
            breaker.changed_at = now;
            breaker.quiet_since = now;
            std::mem::replace(&mut breaker.state, to)
        })
    }

    pub(super) fn prune(&self, keep: &mut impl FnMut(&TenantId) -> bool) -> usize {
        self.table.retain(|key, _| keep(&key.0))
    }

    /// Number of breakers, of all tenants.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no breaker.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Breakers that a full table has forgotten.
    pub fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    /// Everything, for a later `restore`.
    pub fn records(&self) -> Vec<(TenantId, ProviderId, BreakerRecord)> {
        let mut records = Vec::new();
        self.table.each(|key, breaker| {
            let record = BreakerRecord {
                state: breaker.state,
                changed_at: breaker.changed_at,
                settings: breaker.settings,
                failure_count: breaker.failure_count,
                success_count: breaker.success_count,
                half_open_calls: breaker.half_open_calls,
            };
            records.push((key.0.clone(), key.1.clone(), record));
        });
        records
    }

    /// Takes back what an earlier run had, with an empty window.
    pub fn restore(&self, tenant: TenantId, provider: ProviderId, record: BreakerRecord, now: Timestamp) {
        let breaker = Breaker {
            state: record.state,
            changed_at: record.changed_at.min(now),
            failure_count: record.failure_count,
            success_count: record.success_count,
            half_open_calls: record.half_open_calls,
            ..Breaker::closed(record.settings, now)
        };
        self.table.change_or_make(
            &(tenant.clone(), provider.clone()),
            now,
            || ((tenant, provider), breaker.clone()),
            |kept| *kept = breaker.clone(),
        );
    }
}

fn transition(tenant: &TenantId, provider: &ProviderId, change: Change, after: &Breaker) -> Transition {
    Transition {
        tenant: tenant.clone(),
        provider: provider.clone(),
        from: change.from,
        to: after.state,
        trigger: change.trigger,
        failure_count: after.failure_count,
        success_count: change.success_count,
        error_rate: change.error_rate,
        window_failures: change.window_failures,
        window_total: change.window_total,
        settings: after.settings,
        elapsed_ms: change.elapsed_ms,
    }
}

#[cfg(test)]
#[path = "breaker_tests.rs"]
mod tests;
