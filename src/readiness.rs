//! Whether the sidecar can answer, and how well: one judgement for `/ready`, `/health` and the orchestrator.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use http::StatusCode;
use serde::Serialize;

use crate::{
    failure::{ErrorCode, Failure},
    refresh::{RefreshState, Refresher},
    respond::{self, Response},
    snapshot::{Age, Origin, SnapshotStore},
};

/// How well lookups can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// From a snapshot that HEIR confirms.
    Live,
    /// From memory that HEIR does not confirm at present.
    Degraded,
    NotReady,
}

/// The judgement and its reason.
#[derive(Debug, Clone, Serialize)]
pub struct ReadinessStatus {
    pub state: State,
    pub reason: &'static str,
}

/// Judges.
#[derive(Debug)]
pub struct Readiness {
    store: Arc<SnapshotStore>,
    refresher: Option<Arc<Refresher>>,
    has_files: AtomicBool,
    stopping: AtomicBool,
}

impl Readiness {
    pub fn new(store: Arc<SnapshotStore>, refresher: Option<Arc<Refresher>>) -> Self {
        Self {
            store,
            refresher,
            has_files: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
        }
    }

    /// The local directory was read.
    pub fn has_files(&self) {
        self.has_files.store(true, Relaxed);
    }

    /// From now on, clients should go elsewhere.
    pub fn stop(&self) {
        self.stopping.store(true, Relaxed);
    }

    pub fn judge(&self) -> ReadinessStatus {
        let (state, reason) = self.state();
        ReadinessStatus { state, reason }
    }

    fn state(&self) -> (State, &'static str) {
        if self.stopping.load(Relaxed) {
            return (State::NotReady, "the sidecar is stopping");
        }
        let Some(refresher) = &self.refresher else {
            return (State::Live, "there is no HEIR; policies_dir is served");
        };
        let (_, age) = self.store.freshness().at(Instant::now());
        let origin = self.store.load().origin();
        let has_something = origin != Origin::None || self.has_files.load(Relaxed);
        if self.store.freshness().refuses(age) && has_something {
            return (
                State::NotReady,
                "the snapshot has expired and refresh.when_expired is refuse",
            );
        }
        match (origin, refresher.status().state) {
            (Origin::None, _) if !self.has_files.load(Relaxed) => (
                State::NotReady,
                "neither HEIR nor the disk nor policies_dir has given a snapshot yet",
            ),
            (Origin::None, _) => (
                State::Degraded,
                "HEIR has not answered yet; policies_dir is served",
            ),
            (Origin::Disk, _) => (
                State::Degraded,
                "HEIR has not answered yet; the disk snapshot is served",
            ),
            (Origin::Heir, _) if age != Age::Fresh => (
                State::Degraded,
                "HEIR has not confirmed the snapshot for longer than refresh.stale_after_ms",
            ),
            (Origin::Heir, RefreshState::Withheld) => (
                State::Degraded,
                "HEIR's answer would remove too many policies and waits for a confirmation",
            ),
            (Origin::Heir, RefreshState::Interrupted) => (State::Degraded, "HEIR is away; memory is served"),
            (Origin::Heir, RefreshState::Live | RefreshState::Connecting) => {
                (State::Live, "HEIR confirms the snapshot")
            }
        }
    }

    /// The Router's `GET /health`: 200 whenever lookups can be answered.
    pub fn health(&self) -> Response {
        let judgement = self.judge();
        // A sidecar that is stopping still answers; it is `/ready` that sends clients elsewhere.
        if judgement.state == State::NotReady && !self.stopping.load(Relaxed) {
            let failure = Failure::new(ErrorCode::HeirUnavailable, judgement.reason).retry_after_seconds(1);
            return respond::failure(failure);
        }
        respond::json(
            StatusCode::OK,
            &serde_json::json!({"status": "ok", "state": judgement.state}),
        )
    }
}
