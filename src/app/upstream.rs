//! Everything that communicates with HEIR.

use std::{sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{runtime::Handle, sync::mpsc, task::JoinHandle};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{error::BuildError, metrics::Metrics, tasks::Task};
use crate::{
    config::Config,
    forward::Forwarder,
    heir::{BaseUrl, HeirClient},
    policy::TenantId,
    refresh::{Fetcher, RefreshConfig, Refresher, Restored},
    route::Upstream,
    snapshot::{Coverage, SnapshotStore},
};

/// How long the files that HEIR is reached with are waited for before HEIR is asked without them.
const READ_WITHIN: Duration = Duration::from_millis(500);

/// The client of HEIR, and the parts that keep the snapshot equal to it.
#[derive(Debug)]
pub(super) struct HeirPart {
    pub(super) upstream: Upstream,
    /// Reports restores of HEIR, for writes that have to be made again.
    pub(super) restored: mpsc::Receiver<Restored>,
}

/// Connects to HEIR, if there is one. Without one, the local directory is authoritative.
pub(super) fn build(
    config: &Config,
    store: &Arc<SnapshotStore>,
    live: &Arc<ArcSwap<RefreshConfig>>,
    metrics: &Metrics,
    work: &Handle,
) -> Result<(Option<HeirPart>, Vec<Task>), BuildError> {
    let fetches = TaskTracker::new();
    let (restores, restored) = mpsc::channel(4);
    let Some(upstream) = connect(config, store, live, metrics, (&fetches, work), restores)? else {
        store.freshness().set_authoritative();
        store.edit(|draft| draft.set_coverage(Coverage::Whole));
        return Ok((None, Vec::new()));
    };
    let (refresher, client) = (upstream.refresher.clone(), upstream.client.clone());
    let named = client.clone();
    let interval = Duration::from_millis(config.heir.health_interval_ms);
    let tasks = vec![
        Task::new("refresh", async move |stop| refresher.run(stop).await),
        Task::new("health", move |stop| check_health(client, interval, stop)),
        Task::new("name", async move |stop| {
            stop.run_until_cancelled(named.follow_name()).await;
        }),
    ];
    let part = HeirPart { upstream, restored };
    Ok((Some(part), tasks))
}

fn connect(
    config: &Config,
    store: &Arc<SnapshotStore>,
    live: &Arc<ArcSwap<RefreshConfig>>,
    metrics: &Metrics,
    (fetches, work): (&TaskTracker, &Handle),
    restores: mpsc::Sender<Restored>,
) -> Result<Option<Upstream>, BuildError> {
    let Some(url) = config.heir_url() else {
        return Ok(None);
    };
    let timeout = Duration::from_millis(config.heir_timeout_ms());
    let client = Arc::new(HeirClient::connect(
        config.heir.clone(),
        BaseUrl::parse(&url)?,
        timeout,
        metrics.heir.clone(),
    )?);
    let policy_bytes = config.limits.max_body_bytes;
    let fetcher = Fetcher::new(
        client.clone(),
        store.clone(),
        live.clone(),
        policy_bytes,
        fetches.clone(),
        work.clone(),
    );
    let tenants = config
        .heir
        .tenants
        .iter()
        .filter_map(|tenant| TenantId::parse(tenant).ok())
        .collect();
    let refresher = Refresher::new(
        client.clone(),
        store.clone(),
        live.clone(),
        tenants,
        policy_bytes,
        config.heir.max_answer_bytes,
        metrics.refresh.clone(),
        restores,
    );
    Ok(Some(Upstream {
        forwarder: Forwarder::new(client.clone()),
        client,
        fetcher: Arc::new(fetcher),
        refresher: Arc::new(refresher),
    }))
}

/// Asks HEIR's health from time to time, re-reads the files that it is reached with where they have changed, and looks its
/// name up.
async fn check_health(client: Arc<HeirClient>, interval: Duration, stop: CancellationToken) {
    let mut reading = None;
    loop {
        reading = reread_files(&client, reading).await;
        client.look_name_up().await;
        if let Err(error) = client.check_health().await {
            tracing::debug!(error = error.chain(), "HEIR is not healthy.");
        }
        let pause = crate::heir::jittered(interval, &mut fastrand::Rng::new());
        tokio::select! {
            biased;
            () = stop.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// Reads the files on a thread that may wait for the disk, unless one does already. What hangs is left behind, to be looked at
/// the next time: HEIR is asked for its health nevertheless.
async fn reread_files(client: &Arc<HeirClient>, hanging: Option<JoinHandle<()>>) -> Option<JoinHandle<()>> {
    let client = client.clone();
    let mut reading = hanging.unwrap_or_else(|| tokio::task::spawn_blocking(move || client.reread_files()));
    match tokio::time::timeout(READ_WITHIN, &mut reading).await {
        Ok(Ok(())) => None,
        Ok(Err(error)) => {
            tracing::error!(%error, "The files for HEIR could not be read.");
            None
        }
        Err(_elapsed) => Some(reading),
    }
}
