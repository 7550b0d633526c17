//! The health of one version of an extension, or of one instance of it: a canary and the stable version share nothing. It is
//! kept over reloads; a new module begins with closed breakers and no quarantine.

use std::{
    collections::VecDeque,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{
    latency::Latency,
    outcome::{Admitted, Blocked, CallOutcome, Change, Cost, Recorded},
    report::LastTrap,
    standings::Standings,
};
use crate::{
    clock::Timestamp,
    extensions::{config::ExtensionsConfig, digest::ModuleDigest, scheduling::Place},
};

/// Crashes that are kept for the operator.
pub(super) const MAX_TRAPS: usize = 10;
/// With each success the slowest one known counts for less, by this part of it.
const FORGETS: u32 = 64;

/// The health of one version or instance.
#[derive(Debug)]
pub struct TargetHealth {
    state: Mutex<State>,
    peak_memory: AtomicU64,
}

#[derive(Debug)]
pub(super) struct State {
    /// The module that the rest is about.
    module: Option<ModuleDigest>,
    pub(super) standings: Standings,
    pub(super) successes: u64,
    pub(super) failures: u64,
    pub(super) last_success: Option<Timestamp>,
    pub(super) last_failure: Option<Timestamp>,
    pub(super) latency: Latency,
    /// About how long successful calls compute at most.
    slowest_success: Duration,
    pub(super) traps: VecDeque<LastTrap>,
}

impl TargetHealth {
    pub(super) fn new(starts_slow: bool) -> Self {
        Self {
            state: Mutex::new(State {
                module: None,
                standings: Standings::new(starts_slow),
                successes: 0,
                failures: 0,
                last_success: None,
                last_failure: None,
                latency: Latency::default(),
                slowest_success: Duration::ZERO,
                traps: VecDeque::new(),
            }),
            peak_memory: AtomicU64::new(0),
        }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins anew where another module is run from now on.
    pub(in crate::extensions) fn runs_module(&self, module: ModuleDigest, starts_slow: bool) {
        let mut state = self.state();
        if state.module != Some(module) {
            if state.module.is_some() {
                state.standings = Standings::new(starts_slow);
                state.slowest_success = Duration::ZERO;
            }
            state.module = Some(module);
        }
    }

    /// Admits a call of a tenant. The caller must [`record`](Self::record) its outcome, or [`withdraw`](Self::withdraw) it.
    pub(in crate::extensions) fn admit(
        &self,
        config: &ExtensionsConfig,
        now: Timestamp,
        tenant: &str,
    ) -> Result<Admitted, Blocked> {
        self.state().standings.admit(config, now, tenant)
    }

    /// Takes back an admission, because no call was made.
    pub(in crate::extensions) fn withdraw(&self, admitted: Admitted, tenant: &str) {
        self.state().standings.withdraw(admitted, tenant);
    }

    /// Records a call that was not made because its input is too large. The platform counts it as a failure.
    pub(in crate::extensions) fn refused(
        &self,
        config: &ExtensionsConfig,
        now: Timestamp,
        admitted: Admitted,
        tenant: &str,
    ) -> Option<Change> {
        let mut state = self.state();
        state.failed(now);
        state.standings.refused(config, now, tenant, admitted)
    }

    /// A call of a tenant computed for longer than the fast lane allows, and is begun anew: where.
    pub(in crate::extensions) fn overran(
        &self,
        now: Timestamp,
        tenant: &str,
        ran: Duration,
    ) -> (Place, Option<Place>) {
        let mut state = self.state();
        let moved = state.standings.ran(now, tenant, ran);
        (state.standings.place(tenant).max(Place::Slow), moved)
    }

    /// Counts what a call computed that says nothing else. Returns where the calls of its tenant run from now on, if that is
    /// another place.
    pub(in crate::extensions) fn ran(&self, now: Timestamp, tenant: &str, ran: Duration) -> Option<Place> {
        self.state().standings.ran(now, tenant, ran)
    }

    /// Records a call: what it took, its outcome, and the tenant and the policy that made it.
    pub(in crate::extensions) fn record(
        &self,
        config: &ExtensionsConfig,
        (admitted, now): (Admitted, Timestamp),
        cost: Cost,
        outcome: &CallOutcome<'_>,
        (tenant, policy): (&str, &str),
    ) -> Recorded {
        let Cost {
            took,
            computed,
            ran,
            memory_bytes,
        } = cost;
        self.peak_memory.fetch_max(memory_bytes as u64, Ordering::Relaxed);
        let mut state = self.state();
        state.latency.record(now, took);
        let in_time = !matches!(outcome, CallOutcome::Timeout);
        let moved = state.standings.ended(now, tenant, (computed, ran), in_time);
        let change = match outcome {
            CallOutcome::Success => {
                state.successes += 1;
                state.last_success = Some(now);
                state.slowest_success = computed.max(state.slowest_success - state.slowest_success / FORGETS);
                state.standings.succeeded(config, now, tenant, admitted)
            }
            CallOutcome::Failure | CallOutcome::Timeout => {
                state.failed(now);
                state.standings.failed(config, now, tenant, admitted)
            }
            CallOutcome::Crash(report) => {
                state.failed(now);
                if state.traps.len() == MAX_TRAPS {
                    state.traps.pop_front();
                }
                state.traps.push_back(LastTrap {
                    at_unix_ms: now.on_the_wall().unix_ms,
                    tenant_id: tenant.to_owned(),
                    policy_id: policy.to_owned(),
                    report: (*report).clone(),
                });
                state.standings.crashed(config, now, tenant, admitted)
            }
        };
        Recorded { change, moved }
    }

    /// About how long successful calls compute at most; zero before the first.
    pub(in crate::extensions) fn slowest_success(&self) -> Duration {
        self.state().slowest_success
    }

    /// The most linear memory that a call had.
    pub(super) fn peak_memory(&self) -> u64 {
        self.peak_memory.load(Ordering::Relaxed)
    }

    /// Ends all quarantines and closes all breakers.
    pub(super) fn release(&self) {
        self.state().standings.release();
    }

    /// How many tenants may not call it because of their own calls; all of them count as one more.
    pub(super) fn blocked(&self, now: Timestamp) -> usize {
        let state = self.state();
        let tenants = state.standings.iter();
        tenants.filter(|(_, standing)| standing.is_blocked(now)).count()
            + usize::from(state.standings.common_until(now).is_some())
    }
}

impl State {
    fn failed(&mut self, now: Timestamp) {
        self.failures += 1;
        self.last_failure = Some(now);
    }
}

#[cfg(test)]
#[path = "target_tests.rs"]
mod tests;
