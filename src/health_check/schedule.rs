//! The schedule of the checks, and what the answers mean for a provider.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

use http::Uri;
use tokio::time::Instant;

use super::{
    probe::Outcome,
    targets::{MOST_ADDRESSES, ProviderKey, Wanted},
};
use crate::{decide::memory::Memory, heir::jittered, policy::HealthCheck};

/// One address.
#[derive(Debug)]
struct Target {
    uri: Uri,
    /// The shortest interval and the longest time-out of all its checks.
    interval: Duration,
    timeout: Duration,
    due: Instant,
    is_running: bool,
    askers: Vec<(ProviderKey, HealthCheck)>,
}

/// The health of a provider.
#[derive(Debug)]
struct Progress {
    address: Arc<str>,
    is_healthy: bool,
    /// Answers in a row that contradict it.
    otherwise: u32,
    counted: Option<Instant>,
}

/// An answer to one address.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) address: Arc<str>,
    pub(super) outcome: Outcome,
    pub(super) took: Duration,
}

/// When which address is asked next, and how its providers are doing.
#[derive(Debug, Default)]
pub(super) struct Schedule {
    targets: HashMap<Arc<str>, Target>,
    /// The ends of the pauses. An entry that its target no longer matches is skipped.
    due: BinaryHeap<Reverse<(Instant, Arc<str>)>>,
    progress: HashMap<ProviderKey, Progress>,
    /// The last warning about checks that are not made.
    not_made: (usize, usize),
}

impl Schedule {
    /// When the next check is due.
    pub(super) fn next_due(&mut self) -> Option<Instant> {
        loop {
            let Reverse((moment, address)) = self.due.peek()?;
            let is_valid = |target: &Target| !target.is_running && target.due == *moment;
            if self.targets.get(address).is_some_and(is_valid) {
                return Some(*moment);
            }
            self.due.pop();
        }
    }

    /// The address that is due.
    pub(super) fn begin(&mut self) -> Option<(Arc<str>, Uri, Duration)> {
        let Reverse((_, address)) = self.due.pop()?;
        let target = self.targets.get_mut(&address)?;
        target.is_running = true;
        Some((address, target.uri.clone(), target.timeout))
    }

    /// Checks in progress become due again.
    pub(super) fn begin_anew(&mut self) {
        let now = Instant::now();
        for (address, target) in &mut self.targets {
            if std::mem::take(&mut target.is_running) {
                target.due = now;
                self.due.push(Reverse((now, address.clone())));
            }
        }
    }

    /// Applies a new snapshot, and keeps the health of the providers that it still checks.
    pub(super) fn apply(&mut self, wanted: Wanted, memory: &Memory, random: &mut fastrand::Rng) {
        let now = Instant::now();
        let mut before = std::mem::take(&mut self.targets);
        let mut known = std::mem::take(&mut self.progress);
        self.due.clear();
        let not_made = (wanted.refused, wanted.left_out);
        for (name, (uri, askers)) in wanted.addresses {
            let address: Arc<str> = name.into();
            for (key, _) in &askers {
                let progress = known.remove(key).unwrap_or_else(|| Progress {
                    address: address.clone(),
                    is_healthy: true,
                    otherwise: 0,
                    counted: None,
                });
                let is_same = progress.address == address;
                let progress = Progress {
                    address: address.clone(),
                    otherwise: if is_same { progress.otherwise } else { 0 },
                    ..progress
                };
                self.progress.insert(key.clone(), progress);
            }
            let times = |time: fn(&HealthCheck) -> u32| {
                askers
                    .iter()
                    .map(move |(_, check)| Duration::from_millis(time(check).into()))
            };
            let interval = times(|check| check.interval_ms.max(1)).min().unwrap_or_default();
            let timeout = times(|check| check.timeout_ms).max().unwrap_or_default();
            let (due, is_running) = match before.remove(&address) {
                Some(target) => (target.due.min(now + interval), target.is_running),
                // Anywhere in the first interval, so that a start does not make all checks at once.
                None => (now + interval.mul_f64(random.f64()), false),
            };
            if !is_running {
                self.due.push(Reverse((due, address.clone())));
            }
            let target = Target {
                uri,
                interval,
                timeout,
                due,
                is_running,
                askers,
            };
            self.targets.insert(address, target);
        }
        // A provider that is no longer checked could never become healthy again.
        for ((tenant, provider), progress) in known {
            if !progress.is_healthy {
                memory.health.set(&tenant, &provider, true);
            }
        }
        self.log_not_made(not_made);
    }

    fn log_not_made(&mut self, not_made: (usize, usize)) {
        if not_made == self.not_made {
            return;
        }
        self.not_made = not_made;
        let (refused, left_out) = not_made;
        if refused > 0 {
            tracing::warn!(
                checks = refused,
                "Some policies name a health check's address that health_checks.allow does not list, or that is none; \
                 it is not asked."
            );
        }
        if left_out > 0 {
            tracing::warn!(
                checks = left_out,
                most = MOST_ADDRESSES,
                "There are more addresses than the limit; the others are not checked."
            );
        }
    }

    /// Applies an answer to every provider that is checked at its address.
    pub(super) fn record(&mut self, answered: &Answered, memory: &Memory, random: &mut fastrand::Rng) {
        let now = Instant::now();
        let Some(target) = self.targets.get_mut(&answered.address) else {
            return;
        };
        target.is_running = false;
        target.due = now + jittered(target.interval, random);
        self.due.push(Reverse((target.due, answered.address.clone())));
        let mut changed: [Vec<&ProviderKey>; 2] = Default::default();
        for (key, check) in &target.askers {
            let Some(progress) = self.progress.get_mut(key) else {
                continue;
            };
            // The address may be checked more often for another tenant; thresholds count answers of this interval.
            let interval = Duration::from_millis(check.interval_ms.into());
            let is_early = |counted: Instant| now.duration_since(counted) < interval.mul_f64(0.75);
            if progress.counted.is_some_and(is_early) {
                continue;
            }
            progress.counted = Some(now);
            let in_time = answered.took <= Duration::from_millis(check.timeout_ms.into());
            let is_good = answered.outcome == Outcome::Healthy && in_time;
            if progress.note(is_good, check) {
                changed[usize::from(is_good)].push(key);
            }
            if !progress.is_healthy {
                // Every time: the memory may have been pruned in between.
                memory.health.set(&key.0, &key.1, false);
            }
        }
        for (tenant, provider) in &changed[1] {
            memory.health.set(tenant, provider, true);
        }
        let host = target.uri.authority().map_or("", |authority| authority.as_str());
        if let [(tenant, provider), ..] = changed[0].as_slice() {
            tracing::warn!(
                %provider,
                %tenant,
                tenants = changed[0].len(),
                host,
                outcome = answered.outcome.as_str(),
                "A provider failed its health checks; decisions leave it out until it passes them."
            );
        }
        if let [(tenant, provider), ..] = changed[1].as_slice() {
            tracing::info!(
                %provider,
                %tenant,
                tenants = changed[1].len(),
                host,
                "A provider passes its health checks again."
            );
        }
    }
}

impl Progress {
    /// Counts an answer; whether it changed the provider's state.
    fn note(&mut self, is_good: bool, check: &HealthCheck) -> bool {
        if is_good == self.is_healthy {
            self.otherwise = 0;
            return false;
        }
        self.otherwise = self.otherwise.saturating_add(1);
        let needed = if is_good {
            check.healthy_threshold
        } else {
            check.unhealthy_threshold
        };
        if self.otherwise < needed.max(1) {
            return false;
        }
        self.otherwise = 0;
        self.is_healthy = is_good;
        true
    }
}
