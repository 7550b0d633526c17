//! Keeps the decision's memory small: what has expired is swept out, and what belongs to tenants that are gone.

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    decide::memory::Memory,
    route,
    snapshot::{Coverage, SnapshotStore},
};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(60);

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
        // Only a snapshot that is known whole says that a tenant is gone.
        let prune = snapshot.generation() != seen && snapshot.coverage() == Coverage::Whole;
        seen = snapshot.generation();
        let swept = tokio::task::spawn_blocking(move || {
            memory.sweep(route::now());
            if prune {
                memory.prune(&mut |tenant| snapshot.tenant(tenant.as_str()).is_some());
            }
        });
        if let Err(error) = swept.await {
            tracing::error!(%error, "The decision's memory could not be swept.");
        }
    }
}
