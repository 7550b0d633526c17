//! The refresh loop: one refresh after the other, at the pace that HEIR's abilities and health allow.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use arc_swap::ArcSwap;
use http::HeaderValue;
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio_util::sync::CancellationToken;

use super::{RefreshConfig, list::Fingerprints, metrics::RefreshMetrics};
use crate::{
    heir::{Backoff, HeirClient, HeirError, Level, RetryConfig},
    policy::TenantId,
    snapshot::{FetchStart, Position, Snapshot, SnapshotStore, Withheld},
};

/// What a refresh came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Changed,
    Unchanged,
}

/// Why a refresh changed nothing although it should have.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    #[error(transparent)]
    Heir(#[from] HeirError),
    #[error(transparent)]
    Withheld(#[from] Withheld),
}

impl RefreshError {
    /// HEIR did not answer, or only to say that it cannot.
    pub fn is_away(&self) -> bool {
        matches!(self, Self::Heir(error) if error.is_away())
    }

    /// The error with its causes, for the log and the admin page.
    pub fn chain(&self) -> String {
        match self {
            Self::Heir(error) => error.chain(),
            Self::Withheld(held) => held.to_string(),
        }
    }
}

/// HEIR lost a part of its history: what was in memory before it did.
#[derive(Debug)]
pub struct Restored {
    pub before: Arc<Snapshot>,
}

/// How the refreshing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum RefreshState {
    /// HEIR has not answered since the start.
    Connecting,
    /// The last refresh succeeded.
    Live,
    /// The last refresh failed; memory is served.
    Interrupted,
    /// HEIR's answer waits for its confirmation.
    Withheld,
}

/// What the admin page shows.
#[derive(Debug, Clone, Serialize)]
pub struct Status {
    pub state: RefreshState,
    pub level: Option<Level>,
    pub outcome: Option<Outcome>,
    pub last_success_unix_ms: Option<u64>,
    pub last_error: Option<String>,
    pub last_error_unix_ms: Option<u64>,
}

/// What has been found out about HEIR since it was last connected to.
#[derive(Debug, Default)]
pub(super) struct Detected {
    pub(super) level: Option<Level>,
    /// HEIR answered a question for changes; otherwise it is not asked again until the next reconnect.
    pub(super) changes_refused: bool,
    /// The snapshot that was activated last, and no other.
    pub(super) committed: Option<Committed>,
    /// HEIR has listed a tenant: it can.
    pub(super) lists: bool,
    pub(super) fingerprints: Fingerprints,
    /// HEIR said that its history is another one; what it has is to be taken, and what was lost to be found.
    pub(super) history_broke: bool,
    /// When the last refresh that is complete began.
    pub(super) last_began: Option<Instant>,
}

/// A snapshot that HEIR gave and that was activated. "Not modified" since then means that memory is up to date only
/// if memory has not been modified since then either: a restored HEIR has old tags.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) etag: HeaderValue,
    pub(super) position: Position,
    pub(super) writes: FetchStart,
}

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
    /// Held while a refresh runs that does not wait for changes; such refreshes come one after the other.
    pub(super) detected: tokio::sync::Mutex<Detected>,
    status: Mutex<Status>,
    restored: mpsc::Sender<Restored>,
    wake: Notify,
}

impl Refresher {
    /// `restored` hears of it when HEIR's history went back.
    #[expect(
        clippy::too_many_arguments,
        reason = "wired once, in app.rs; a builder would only spell the names twice"
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
            restored,
            wake: Notify::new(),
        }
    }

    pub fn status(&self) -> Status {
        self.status.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Ends the current pause of the loop, after a change of its configuration.
    pub fn wake(&self) {
        self.wake.notify_one();
    }

    /// Refreshes now. What HEIR had when this was called is in memory when it returns; callers that come at the
    /// same time share one refresh.
    pub async fn refresh_now(self: &Arc<Self>, confirm: bool) -> Result<Outcome, RefreshError> {
        let this = self.clone();
        to_the_end(async move { this.refresh_in_turn(confirm).await }).await
    }

    async fn refresh_in_turn(&self, confirm: bool) -> Result<Outcome, RefreshError> {
        let asked = Instant::now();
        let mut detected = self.detected.lock().await;
        if !confirm && detected.last_began.is_some_and(|began| began > asked) {
            return Ok(Outcome::Unchanged);
        }
        let result = self.pass(&mut detected, confirm).await;
        drop(detected);
        self.record(&result);
        result
    }

    /// Takes what HEIR has now of one tenant, by the call that this HEIR has for it. Where it has none, memory is
    /// all there is.
    pub async fn refresh_list(self: &Arc<Self>, tenant: &TenantId) -> Result<Outcome, RefreshError> {
        let patience = self.client.timeout();
        let (this, tenant) = (self.clone(), tenant.clone());
        let refresh = to_the_end(async move {
            let level = this.detected.lock().await.level;
            match level {
                None | Some(Level::Changes | Level::Snapshot) => this.refresh_in_turn(false).await,
                Some(Level::List) => {
                    let mut detected = this.detected.lock().await;
                    this.refresh_tenant(&mut detected, &tenant, false).await
                }
                Some(Level::Single) => Ok(Outcome::Unchanged),
            }
        });
        // Another refresh may be at it, with a HEIR that sends slowly; memory is there now.
        let elapsed = |_elapsed| HeirError::Timeout { after: patience };
        tokio::time::timeout(patience, refresh).await.map_err(elapsed)?
    }

    /// Refreshes until told to stop.
    pub async fn run(&self, stop: CancellationToken) {
        let seed = self
            .config
            .load()
            .jitter_seed
            .unwrap_or_else(|| fastrand::u64(..));
        let mut random = fastrand::Rng::with_seed(seed);
        let mut backoff = self.backoff(seed);
        loop {
            let (result, hasty) = tokio::select! {
                biased;
                () = stop.cancelled() => return,
                step = self.step() => step,
            };
            self.record(&result);
            let pause = match &result {
                // Longer each time, so that a HEIR that does not wait, or makes no sense, is not asked without end.
                Ok(_) if hasty => Some(backoff.next_pause()),
                Ok(_) => {
                    backoff = self.backoff(random.u64(..));
                    self.pause_after_success(&mut random).await
                }
                Err(RefreshError::Heir(HeirError::Paused { retry_in })) => {
                    Some(*retry_in + backoff.next_pause())
                }
                // The same answer is asked for again at once, as a confirmation; a pause keeps a HEIR that is
                // being filled from confirming its own half-empty state.
                Err(RefreshError::Withheld(Withheld::Shrink { .. })) => Some(self.interval(&mut random)),
                Err(RefreshError::Withheld(_)) => None,
                Err(_) => Some(backoff.next_pause() + Duration::from_millis(10)),
            };
            let Some(pause) = pause else { continue };
            let mut up = self.client.up();
            up.mark_unchanged();
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = self.wake.notified() => {}
                // HEIR has answered somebody else: no need to wait any longer.
                Ok(_) = up.wait_for(|up| *up), if result.is_err() && !self.client.is_up() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    fn backoff(&self, seed: u64) -> Backoff {
        let longest = self.config.load().interval_ms.max(100);
        Backoff::new(
            RetryConfig {
                max_attempts: u32::MAX,
                initial_ms: 100.min(longest),
                factor: 2.0,
                max_ms: longest,
            },
            seed,
        )
    }

    fn interval(&self, random: &mut fastrand::Rng) -> Duration {
        crate::heir::jittered(Duration::from_millis(self.config.load().interval_ms), random)
    }

    async fn pause_after_success(&self, random: &mut fastrand::Rng) -> Option<Duration> {
        let level = self.detected.lock().await.level;
        (level != Some(Level::Changes)).then(|| self.interval(random))
    }

    /// One turn of the loop: waits for changes where HEIR can tell of them, polls otherwise. With it, whether HEIR
    /// should have waited and did not.
    async fn step(&self) -> (Result<Outcome, RefreshError>, bool) {
        let waits = {
            let detected = self.detected.lock().await;
            detected.level == Some(Level::Changes)
        };
        if waits {
            let (wait, interval) = {
                let config = self.config.load();
                (config.long_poll_timeout_ms, config.interval_ms)
            };
            let began = Instant::now();
            match self.ask_for_changes(Duration::from_millis(wait), false).await {
                Err(error) if error.is_away() => {
                    // The next connection may be to another HEIR: what this one could do is forgotten.
                    self.detected.lock().await.forget_level();
                    return (Err(error), false);
                }
                Err(RefreshError::Withheld(Withheld::Outdated)) => return (Ok(Outcome::Unchanged), false),
                // Another history, a gap, or nonsense: everything is taken anew.
                Err(error) => self.detected.lock().await.note_gap(&error),
                Ok(Outcome::Unchanged) => {
                    let hasty = began.elapsed() < Duration::from_millis(wait.min(interval) / 2);
                    return (Ok(Outcome::Unchanged), hasty);
                }
                changed => return (changed, false),
            }
        }
        let mut detected = self.detected.lock().await;
        (self.pass(&mut detected, false).await, waits)
    }

    pub(super) async fn report_restored(&self, before: Arc<Snapshot>) {
        tracing::warn!("HEIR's history went back: it was restored from a backup. Its state is taken over.");
        if self.restored.send(Restored { before }).await.is_err() {
            tracing::debug!("Nobody looks for lost writes any more.");
        }
    }

    fn record(&self, result: &Result<Outcome, RefreshError>) {
        let mut status = self.status.lock().unwrap_or_else(PoisonError::into_inner);
        let now = unix_ms();
        let (state, label) = match result {
            Ok(outcome) => {
                status.outcome = Some(*outcome);
                status.last_success_unix_ms = Some(now);
                (
                    RefreshState::Live,
                    if *outcome == Outcome::Changed {
                        "changed"
                    } else {
                        "unchanged"
                    },
                )
            }
            Err(error) => {
                let text = error.chain();
                let held = matches!(error, RefreshError::Withheld(Withheld::Shrink { .. }));
                let (state, label) = if held {
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
                let connecting = status.state == RefreshState::Connecting && !held;
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

/// Goes on when the caller leaves: a client that hangs up must not leave a refresh half noted.
async fn to_the_end(
    refresh: impl Future<Output = Result<Outcome, RefreshError>> + Send + 'static,
) -> Result<Outcome, RefreshError> {
    match tokio::spawn(refresh).await {
        Ok(result) => result,
        Err(error) => Err(HeirError::Invalid(format!("the refresh failed: {error}")).into()),
    }
}

impl Detected {
    /// Remembers why changes could not be applied.
    pub(super) fn note_gap(&mut self, error: &RefreshError) {
        match error {
            RefreshError::Withheld(Withheld::OtherHistory)
            | RefreshError::Heir(HeirError::Gone { restored: true }) => {
                self.history_broke = true;
                // The same revision may name something else by now.
                self.committed = None;
            }
            RefreshError::Heir(error) if error.is_unsupported() => self.changes_refused = true,
            _ => {}
        }
    }

    pub(super) fn forget_level(&mut self) {
        self.level = None;
        self.changes_refused = false;
        self.lists = false;
    }
}

pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
