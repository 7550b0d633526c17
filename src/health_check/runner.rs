//! The loop: asks what is due, and looks at the policies again when a snapshot is published.

use std::{sync::Arc, time::Duration};

use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{
    checker::HealthChecker,
    schedule::{Answered, Schedule},
};
use crate::{
    decide::memory::Memory,
    policy::RoutingPolicy,
    snapshot::{Policy, SnapshotStore},
};

/// Snapshots that follow each other within this time are handled together.
const SETTLE: Duration = Duration::from_millis(500);

impl HealthChecker {
    /// Makes the checks that the policies of the current snapshot define, until it is stopped.
    pub async fn run(self, store: Arc<SnapshotStore>, memory: Arc<Memory>, stopping: CancellationToken) {
        self.run_by(store, memory, checked, stopping).await;
    }

    /// As `run`, with another reading of the policies: the language allows no interval below a second.
    pub async fn run_by<R>(
        self,
        store: Arc<SnapshotStore>,
        memory: Arc<Memory>,
        routing: R,
        stopping: CancellationToken,
    ) where
        R: for<'a> Fn(&'a Policy) -> Option<&'a RoutingPolicy>,
    {
        if !self.config.enabled {
            return;
        }
        let mut published = store.published();
        let mut random = fastrand::Rng::new();
        let mut schedule = Schedule::default();
        let mut running: JoinSet<Answered> = JoinSet::new();
        let mut look_at = Some(Instant::now());
        loop {
            let room = running.len() < self.config.max_in_flight;
            let next = schedule.next_due().filter(|_| room);
            tokio::select! {
                biased;
                () = stopping.cancelled() => return,
                () = until(look_at) => {
                    look_at = None;
                    published.borrow_and_update();
                    let wanted = self.rules.wanted(&store.load_full(), &routing);
                    schedule.apply(wanted, &memory, &mut random);
                }
                Some(answered) = running.join_next(), if !running.is_empty() => {
                    match answered {
                        Ok(answered) => {
                            self.metrics.check(answered.outcome.as_str());
                            schedule.record(&answered, &memory, &mut random);
                        }
                        Err(error) => {
                            tracing::error!(%error, "A health check was lost; all checks in progress are repeated.");
                            running.abort_all();
                            while running.join_next().await.is_some() {}
                            schedule.begin_anew();
                        }
                    }
                }
                () = until(next) => {
                    if let Some((address, uri, timeout)) = schedule.begin() {
                        let prober = self.prober.clone();
                        running.spawn(async move {
                            let (outcome, took) = prober.ask(uri, timeout).await;
                            Answered { address, outcome, took }
                        });
                    }
                }
                changed = published.changed(), if look_at.is_none() => {
                    if changed.is_err() {
                        return;
                    }
                    look_at = Some(Instant::now() + SETTLE);
                }
            }
            let unhealthy = i64::try_from(memory.health.len()).unwrap_or(i64::MAX);
            self.metrics.providers_unhealthy.set(unhealthy);
        }
    }
}

/// The policy, if it has a check: most have none, and need not be kept in memory in this form.
fn checked(policy: &Policy) -> Option<&RoutingPolicy> {
    policy.has_health_check().then(|| policy.routing())
}

async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
