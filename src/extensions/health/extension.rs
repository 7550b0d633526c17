//! The health of one extension: of its versions and instances together, and what they share.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

use super::{
    latency::Latency,
    report::{BlockedTenant, BreakerReport, HealthReport, LastTrap, VersionHealth},
    target::{MAX_TRAPS, State, TargetHealth},
};
use crate::{clock::Timestamp, extensions::scheduling::Place};

/// How long nothing more is logged of an extension that moves from lane to lane. The metric counts each move.
const QUIET_ABOUT_MOVES_MS: u64 = 600_000;
/// Lines that an extension may log in one second.
const MAX_LOG_LINES_PER_SECOND: usize = 50;
/// Lines about changes of an extension's health in one minute. The metrics count each change.
const MAX_CHANGES_PER_MINUTE: u32 = 10;
/// Blocked tenants that a report names.
const MAX_BLOCKED: usize = 100;

/// A version, and its instance where the record names any.
type Name = (Box<str>, Option<Box<str>>);

/// The health of one extension.
#[derive(Debug, Default)]
pub struct ExtensionHealth {
    running: AtomicU32,
    /// Calls that wait until one of those ends.
    claims: AtomicU32,
    targets: Mutex<BTreeMap<Name, Arc<TargetHealth>>>,
    told: Mutex<Told>,
}

/// What was written to the log lately.
#[derive(Debug, Default)]
struct Told {
    second: u64,
    lines: usize,
    minute: u64,
    changes: u32,
    /// When its last move was logged.
    move_at: Option<Timestamp>,
}

/// A call that counts as running.
#[derive(Debug)]
pub(in crate::extensions) struct Permit(Arc<ExtensionHealth>);

/// What the next permit is for that becomes free.
#[derive(Debug)]
pub(in crate::extensions) struct Claim(Arc<ExtensionHealth>);

impl Drop for Claim {
    fn drop(&mut self) {
        self.0.claims.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::Relaxed);
    }
}

impl ExtensionHealth {
    /// The health of a version or an instance. A new one begins in the fast lane, unless it `starts_slow`.
    pub(in crate::extensions) fn target(
        &self,
        version: &str,
        instance: Option<&str>,
        starts_slow: bool,
    ) -> Arc<TargetHealth> {
        self.targets()
            .entry((version.into(), instance.map(Into::into)))
            .or_insert_with(|| Arc::new(TargetHealth::new(starts_slow)))
            .clone()
    }

    /// Forgets the versions and instances that there are no more.
    pub(in crate::extensions) fn retain(&self, is_there: impl Fn(&str, Option<&str>) -> bool) {
        self.targets()
            .retain(|(version, instance), _| is_there(version, instance.as_deref()));
    }

    fn targets(&self) -> MutexGuard<'_, BTreeMap<Name, Arc<TargetHealth>>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn told(&self) -> MutexGuard<'_, Told> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Permits one call, if fewer than `concurrency` are running, waiting or have claims.
    pub(in crate::extensions) fn permit(self: &Arc<Self>, concurrency: u32) -> Option<Permit> {
        self.permit_of(concurrency.saturating_sub(self.claims.load(Ordering::Relaxed)))
    }

    /// As [`Self::permit`], for a call that has a claim.
    pub(in crate::extensions) fn permit_claimed(
        self: &Arc<Self>,
        _: &Claim,
        concurrency: u32,
    ) -> Option<Permit> {
        self.permit_of(concurrency)
    }

    /// Claims the next permit that becomes free.
    pub(in crate::extensions) fn claim(self: &Arc<Self>) -> Claim {
        self.claims.fetch_add(1, Ordering::Relaxed);
        Claim(self.clone())
    }

    fn permit_of(self: &Arc<Self>, concurrency: u32) -> Option<Permit> {
        let before = self.running.fetch_add(1, Ordering::Relaxed);
        let permit = Permit(self.clone());
        (before < concurrency).then_some(permit)
    }

    /// Where calls run, of the version and the tenant for which they take longest.
    pub(in crate::extensions) fn slowest_place(&self) -> Place {
        let targets = self.targets();
        let places = targets
            .values()
            .map(|target| target.state().standings.slowest_place());
        places.max().unwrap_or(Place::Fast)
    }

    /// Whether a move to another lane is news: one that is about as fast as a lane allows may move every few seconds.
    pub(in crate::extensions) fn is_news_that_it_moved(&self, now: Timestamp) -> bool {
        let mut told = self.told();
        let is_news = told
            .move_at
            .is_none_or(|at| now.since(at) >= QUIET_ABOUT_MOVES_MS);
        if is_news {
            told.move_at = Some(now);
        }
        is_news
    }

    /// Whether one more line about its health may be written: each tenant may be blocked and released.
    pub(in crate::extensions) fn may_tell_change(&self, now: Timestamp) -> bool {
        let mut told = self.told();
        let minute = now.unix_ms / 60_000;
        if told.minute != minute {
            told.minute = minute;
            told.changes = 0;
        }
        told.changes = told.changes.saturating_add(1);
        told.changes <= MAX_CHANGES_PER_MINUTE
    }

    /// How many of these lines may be logged in this second.
    pub(in crate::extensions) fn may_log(&self, now: Timestamp, lines: usize) -> usize {
        let mut told = self.told();
        let second = now.unix_ms / 1_000;
        if told.second != second {
            told.second = second;
            told.lines = 0;
        }
        let allowed = lines.min(MAX_LOG_LINES_PER_SECOND.saturating_sub(told.lines));
        told.lines += allowed;
        allowed
    }

    /// Ends all quarantines and closes all breakers.
    pub fn release(&self) {
        self.targets().values().for_each(|target| target.release());
    }

    /// For how many tenants a version is blocked.
    pub(in crate::extensions) fn blocked(&self, now: Timestamp) -> usize {
        self.targets().values().map(|target| target.blocked(now)).sum()
    }

    /// The last crashes, the oldest first.
    pub fn traps(&self) -> Vec<LastTrap> {
        let targets = self.targets();
        let mut traps: Vec<LastTrap> = Vec::new();
        for target in targets.values() {
            traps.extend(target.state().traps.iter().cloned());
        }
        traps.sort_by_key(|trap| trap.at_unix_ms);
        traps.split_off(traps.len().saturating_sub(MAX_TRAPS))
    }

    /// How the extension fares, as the platform reports it.
    pub fn report(&self, id: &str, now: Timestamp) -> HealthReport {
        let targets = self.targets();
        let states: Vec<(&Name, MutexGuard<'_, State>)> = targets
            .iter()
            .map(|(name, target)| (name, target.state()))
            .collect();
        let sum = |of: fn(&State) -> u64| states.iter().map(|(_, state)| of(state)).sum::<u64>();
        let last = |of: fn(&State) -> Option<Timestamp>| {
            let last = states.iter().filter_map(|(_, state)| of(state)).max();
            last.map(|timestamp| timestamp.on_the_wall().unix_ms)
        };
        let (successes, failures) = (sum(|state| state.successes), sum(|state| state.failures));
        let total = successes + failures;
        #[expect(clippy::cast_precision_loss, reason = "a share of counts below 2^52")]
        let success_rate = if total == 0 {
            1.0
        } else {
            successes as f64 / total as f64
        };
        let status = match success_rate {
            rate if rate >= 0.95 => "healthy",
            rate if rate >= 0.80 => "degraded",
            _ => "unhealthy",
        };
        let latencies: Vec<&Latency> = states.iter().map(|(_, state)| &state.latency).collect();
        let latency = Latency::report(&latencies, now);
        let places = states.iter().map(|(_, state)| state.standings.slowest_place());
        let blocked_tenants: Vec<BlockedTenant> = states
            .iter()
            .flat_map(|(name, state)| blocked(name, state, now))
            .take(MAX_BLOCKED)
            .collect();
        HealthReport {
            extension_id: id.to_owned(),
            status,
            success_rate,
            successes,
            failures,
            avg_latency_ms: latency.avg_ms,
            p50_latency_ms: latency.p50_ms,
            p95_latency_ms: latency.p95_ms,
            p99_latency_ms: latency.p99_ms,
            last_success: last(|state| state.last_success),
            last_failure: last(|state| state.last_failure),
            lane: places.max().unwrap_or(Place::Fast).as_str(),
            running: self.running.load(Ordering::Relaxed),
            peak_memory_bytes: targets
                .values()
                .map(|target| target.peak_memory())
                .max()
                .unwrap_or_default(),
            quarantined_until: states
                .iter()
                .filter_map(|(_, state)| quarantined_until(state, now))
                .max()
                .map(|until| until.on_the_wall().unix_ms),
            blocked_tenants,
            versions: states
                .iter()
                .map(|((version, instance), state)| VersionHealth {
                    version: version.to_string(),
                    instance_id: instance.as_deref().map(ToOwned::to_owned),
                    successes: state.successes,
                    failures: state.failures,
                    p99_latency_ms: Latency::report(&[&state.latency], now).p99_ms,
                    lane: state.standings.slowest_place().as_str(),
                    quarantined_until: state
                        .standings
                        .common_until(now)
                        .map(|until| until.on_the_wall().unix_ms),
                })
                .collect(),
        }
    }

    /// The breaker of the tenant that fares worst, as the platform reports it.
    pub fn breaker(&self, id: &str, now: Timestamp) -> BreakerReport {
        let targets = self.targets();
        let states: Vec<MutexGuard<'_, State>> = targets.values().map(|target| target.state()).collect();
        let quarantined = states.iter().any(|state| quarantined_until(state, now).is_some());
        let breakers = states
            .iter()
            .flat_map(|state| state.standings.iter().map(|(_, standing)| &standing.breaker));
        match breakers.max_by_key(|breaker| breaker.badness()) {
            Some(breaker) => breaker.report(id, quarantined),
            None => super::breaker::Breaker::default().report(id, quarantined),
        }
    }
}

/// The latest time until which a tenant may not call it because of crashes.
fn quarantined_until(state: &State, now: Timestamp) -> Option<Timestamp> {
    let tenants = state
        .standings
        .iter()
        .filter_map(|(_, standing)| standing.quarantine.until(now));
    tenants.chain(state.standings.common_until(now)).max()
}

fn blocked<'a>(
    (version, instance): &'a Name,
    state: &'a State,
    now: Timestamp,
) -> impl Iterator<Item = BlockedTenant> + 'a {
    let blocked = state
        .standings
        .iter()
        .filter(move |(_, standing)| standing.is_blocked(now));
    blocked.map(move |(tenant, standing)| BlockedTenant {
        tenant_id: tenant.to_owned(),
        version: version.to_string(),
        instance_id: instance.as_deref().map(ToOwned::to_owned),
        breaker: standing.breaker.report("", false).state,
        quarantined_until: standing
            .quarantine
            .until(now)
            .map(|until| until.on_the_wall().unix_ms),
    })
}
