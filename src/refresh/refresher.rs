//! The refresher: what every way of refreshing shares.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Instant,
};

use arc_swap::ArcSwap;
use tokio::sync::{Notify, mpsc};

use super::{
    config::RefreshConfig,
    detected::Detected,
    metrics::RefreshMetrics,
    outcome::{Outcome, RefreshError, RefreshState, Restored, Status},
};
use crate::{
    clock::wall,
    heir::{HeirClient, HeirError, Level},
    policy::TenantId,
    snapshot::{Activation, FetchStart, Guarded, Incoming, Snapshot, SnapshotStore, Withheld},
};

/// Refreshes the snapshot from HEIR.
#[derive(Debug)]
pub struct Refresher {
    pub(super) client: Arc<HeirClient>,
    pub(super) store: Arc<SnapshotStore>,
    pub(super) config: Arc<ArcSwap<RefreshConfig>>,
    pub(super) tenants: Vec<TenantId>,
    pub(super) policy_bytes: usize,
    pub(super) max_answer_bytes: u64,
    pub(super) metrics: Arc<RefreshMetrics>,
    /// Locked while a refresh runs that does not wait for changes; such refreshes come one after the other.
    pub(super) detected: tokio::sync::Mutex<Detected>,
    status: Mutex<Status>,
    /// What the refresh under way could not do, while it goes on.
    partial: Mutex<Option<String>>,
    restored: mpsc::Sender<Restored>,
    pub(super) wake: Notify,
}

impl Refresher {
    /// `restored` receives a message when HEIR's history went back.
    #[expect(
        clippy::too_many_arguments,
        reason = "wired once, in app; a builder would only spell the names twice"
    )]
    pub fn new(
        client: Arc<HeirClient>,
        store: Arc<SnapshotStore>,
        config: Arc<ArcSwap<RefreshConfig>>,
        tenants: Vec<TenantId>,
        policy_bytes: usize,
        max_answer_bytes: u64,
        metrics: Arc<RefreshMetrics>,
        restored: mpsc::Sender<Restored>,
    ) -> Self {
        let status = Status {
            state: RefreshState::Connecting,
            level: None,
            outcome: None,
            last_success_unix_ms: None,
            last_error: None,
            last_error_unix_ms: None,
        };
        Self {
            client,
            store,
            config,
            tenants,
            policy_bytes,
            max_answer_bytes,
            metrics,
            detected: tokio::sync::Mutex::default(),
            status: Mutex::new(status),
            partial: Mutex::default(),
            restored,
            wake: Notify::new(),
        }
    }

    /// How the refreshing goes.
    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The last error of a refresh with its causes, if the last one failed.
    pub fn last_error(&self) -> Option<String> {
        let status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let failed = status.state != RefreshState::Live;
        status.last_error.clone().filter(|_| failed)
    }

    /// Ends the current pause of the loop, after a change of its configuration.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Builds and publishes on a thread of its own, so that no other task has to wait for it.
    pub(super) async fn activate(
        &self,
        start: FetchStart,
        incoming: Incoming,
        guarded: Guarded,
    ) -> Result<Activation, RefreshError> {
        let store = self.store.clone();
        let activated = tokio::task::spawn_blocking(move || store.activate(start, incoming, guarded)).await;
        match activated {
            Ok(result) => Ok(result?),
            Err(error) => Err(HeirError::Invalid(format!("the activation failed: {error}")).into()),
        }
    }

    pub(super) fn note_activation(&self, began: Instant, activation: Activation) {
        let seconds = began.elapsed().as_secs_f64();
        self.metrics.duration_seconds.observe(seconds);
        self.metrics.load_time_ms.set(seconds * 1e3);
        let Activation { loaded, removed, .. } = activation;
        tracing::debug!(loaded, removed, seconds, "Published another snapshot.");
    }

    pub(super) async fn report_restored(&self, before: Arc<Snapshot>) {
        tracing::warn!("HEIR's history went back: it was restored from a backup. Its state is taken over.");
        if self.restored.send(Restored { before }).await.is_err() {
            tracing::debug!("Lost writes are not looked for any more.");
        }
    }

    /// Notes what a refresh cannot do that succeeds otherwise.
    pub(super) fn note_partial(&self, what: Option<String>) {
        *self.partial.lock().unwrap_or_else(PoisonError::into_inner) = what;
    }

    /// Notes what a refresh came to, for the status, the log and the metrics.
    pub(super) fn record(&self, result: &Result<Outcome, RefreshError>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let now = wall().unix_ms;
        let partial = self.partial.lock().unwrap_or_else(PoisonError::into_inner).take();
        let (state, label) = match result {
            Ok(outcome) => {
                status.outcome = Some(*outcome);
                status.last_success_unix_ms = Some(now);
                let label = match (&partial, outcome) {
                    (Some(_), _) => "partial",
                    (None, Outcome::Changed) => "changed",
                    (None, Outcome::Unchanged) => "unchanged",
                };
                let state = match partial {
                    None => RefreshState::Live,
                    Some(what) => {
                        if status.state != RefreshState::Partial {
                            tracing::warn!(
                                error = what,
                                "A part could not be refreshed; its last good version is served."
                            );
                        }
                        status.last_error = Some(what);
                        status.last_error_unix_ms = Some(now);
                        RefreshState::Partial
                    }
                };
                (state, label)
            }
            Err(error) => {
                let text = error.chain();
                let withheld = matches!(error, RefreshError::Withheld(Withheld::Shrink { .. }));
                let (state, label) = if withheld {
                    (RefreshState::Withheld, "held")
                } else {
                    (RefreshState::Interrupted, "failed")
                };
                // The first failure of an outage is news; its repetition is not.
                if status.state != state {
                    tracing::warn!(
                        error = text,
                        "The refresh failed; the last good snapshot is served."
                    );
                }
                status.last_error = Some(text);
                status.last_error_unix_ms = Some(now);
                let connecting = status.state == RefreshState::Connecting && !withheld;
                (
                    if connecting {
                        RefreshState::Connecting
                    } else {
                        state
                    },
                    label,
                )
            }
        };
        if state == RefreshState::Live && status.state != state {
            tracing::info!(
                level = status.level.map(Level::as_str),
                "The snapshot is kept up to date from HEIR."
            );
        }
        status.state = state;
        self.metrics.refresh(label);
    }

    pub(super) fn set_level(&self, detected: &mut Detected, level: Level) {
        if detected.level != Some(level) {
            tracing::info!(level = level.as_str(), "Found out what this HEIR can do.");
        }
        detected.level = Some(level);
        self.metrics.level(level.as_str(), &Level::ALL);
        self.status.lock().unwrap_or_else(PoisonError::into_inner).level = Some(level);
    }
}
