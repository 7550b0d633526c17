//! Whether the sidecar can answer, and how well: one status for `/ready`, `/health` and the orchestrator.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};

use serde::Serialize;

use crate::{
    heartbeat::Heartbeat,
    refresh::{RefreshState, Refresher},
    snapshot::{Age, Origin, SnapshotStore},
};

/// How well lookups can be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ReadinessState")]
pub enum State {
    /// From a snapshot that HEIR confirms.
    Live,
    /// From the disk or from `policies_dir`, until HEIR has answered for the first time or has failed to.
    Starting,
    /// From memory that HEIR does not confirm at present.
    Degraded,
    /// Not at all, or the sidecar is stopping.
    NotReady,
}

/// The state and its reason.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct ReadinessStatus {
    /// How well lookups can be answered.
    pub state: State,
    /// Why, as a sentence for a person.
    pub reason: &'static str,
    /// The last error of a refresh with its causes, as long as it keeps the sidecar from being live.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Whether a client should go on asking this sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Lookups are answered.
    Ok(State),
    /// They are not, for this reason.
    Unavailable(&'static str),
}

/// Knows what readiness depends on.
#[derive(Debug)]
pub struct Readiness {
    store: Arc<SnapshotStore>,
    refresher: Option<Arc<Refresher>>,
    heartbeat: Arc<Heartbeat>,
    has_files: AtomicBool,
    stopping: AtomicBool,
    /// Extensions without which it is not ready after a start.
    required: Vec<String>,
    /// Each of them could be called at some time.
    had_required: AtomicBool,
}

impl Readiness {
    /// `refresher` is `None` where there is no HEIR; `required` are extensions without which it is not ready after a start.
    pub fn new(
        store: Arc<SnapshotStore>,
        refresher: Option<Arc<Refresher>>,
        heartbeat: Arc<Heartbeat>,
        required: Vec<String>,
    ) -> Self {
        Self {
            store,
            refresher,
            heartbeat,
            has_files: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            required,
            had_required: AtomicBool::new(false),
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

    /// The status at this moment.
    pub fn status(&self) -> ReadinessStatus {
        let (state, reason) = self.state();
        if state != State::NotReady && !self.stopping.load(Relaxed) {
            let missing = self.missing();
            if !missing.is_empty() {
                return ReadinessStatus {
                    state: State::NotReady,
                    reason: "not all extensions of extensions.required_at_start can be called yet",
                    last_error: Some(format!("missing: {}", missing.join(", "))),
                };
            }
        }
        let refresher = self.refresher.as_ref().filter(|_| state != State::Live);
        ReadinessStatus {
            state,
            reason,
            last_error: refresher.and_then(|refresher| refresher.last_error()),
        }
    }

    /// Extensions that are waited for after a start.
    fn missing(&self) -> Vec<&str> {
        if self.required.is_empty() || self.had_required.load(Relaxed) {
            return Vec::new();
        }
        let snapshot = self.store.load();
        let is_missing = |id: &&str| snapshot.registry().get(id).is_none();
        let missing: Vec<&str> = self
            .required
            .iter()
            .map(String::as_str)
            .filter(is_missing)
            .collect();
        // An extension that breaks later is what its policies say, not the end of the whole sidecar.
        if missing.is_empty() {
            self.had_required.store(true, Relaxed);
        }
        missing
    }

    /// Whether this process can take over from another: it answers lookups, and has the extensions that a start waits for.
    pub fn has_started(&self) -> bool {
        matches!(self.health(), Health::Ok(_)) && self.missing().is_empty()
    }

    fn state(&self) -> (State, &'static str) {
        if self.stopping.load(Relaxed) {
            return (State::NotReady, "the sidecar is stopping");
        }
        if self.heartbeat.is_stuck() {
            return (State::NotReady, "a thread that answers the Router is stuck");
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
        let status = refresher.status();
        let is_first = status.state == RefreshState::Connecting && status.last_error.is_none();
        match (origin, status.state) {
            (Origin::None, _) if !self.has_files.load(Relaxed) => (
                State::NotReady,
                "neither HEIR nor the disk nor policies_dir has given a snapshot yet",
            ),
            (Origin::None, _) if is_first => (
                State::Starting,
                "HEIR is asked for the first time; policies_dir is served",
            ),
            (Origin::Disk, _) if is_first => (
                State::Starting,
                "HEIR is asked for the first time; the disk snapshot is served",
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
            (Origin::Heir, RefreshState::Partial) => (
                State::Degraded,
                "HEIR confirms the snapshot but for some tenants or policies",
            ),
            (Origin::Heir, RefreshState::Interrupted) => (State::Degraded, "HEIR is away; memory is served"),
            (Origin::Heir, RefreshState::Live | RefreshState::Connecting) => {
                (State::Live, "HEIR confirms the snapshot")
            }
        }
    }

    /// Whether lookups can be answered. A sidecar that is stopping still answers them; it is the status that sends
    /// clients elsewhere.
    pub fn health(&self) -> Health {
        match self.state() {
            (State::NotReady, reason) if !self.stopping.load(Relaxed) => Health::Unavailable(reason),
            (state, _) => Health::Ok(state),
        }
    }
}
