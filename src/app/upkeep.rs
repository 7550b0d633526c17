//! Keeps the decision's memory small: removes expired entries, and those of tenants that no longer exist.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    clock,
    decide::memory::Memory,
    snapshot::{Coverage, SnapshotStore},
};

/// Interval of sweeping.
const EVERY: Duration = Duration::from_secs(60);

/// Looks at the system's clock once a second, so that what is shown or written down follows it when it is set.
pub(super) async fn follow_the_clock(stop: CancellationToken) {
    loop {
        if let Some(by_ms) = clock::notice_step() {
            tracing::warn!(
                by_ms,
                "The system's clock was set. Nothing waits for longer or shorter because of that."
            );
        }
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(Duration::from_secs(1)) => {}
        }
    }
}

pub(super) async fn run(store: Arc<SnapshotStore>, memory: Arc<Memory>, stop: CancellationToken) {
    let mut seen = store.load().generation();
    loop {
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(EVERY) => {}
        }
        let snapshot = store.load_full();
        let memory = memory.clone();
        // Only a whole snapshot proves that a tenant no longer exists.
        let prune = snapshot.generation() != seen && snapshot.coverage() == Coverage::Whole;
        seen = snapshot.generation();
        let swept = tokio::task::spawn_blocking(move || {
            memory.sweep(clock::now());
            if prune {
                memory.prune(&mut |tenant| snapshot.tenant(tenant.as_str()).is_some());
            }
        });
        if let Err(error) = swept.await {
            tracing::error!(%error, "The decision's memory could not be swept.");
        }
    }
}
