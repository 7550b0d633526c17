//! The parts of a sidecar that an operator can reach.

use std::{fmt, sync::Arc};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    decide::memory::Memory,
    extensions::ExtensionMetrics,
    heartbeat::Heartbeat,
    heir::HeirClient,
    intake::IntakeMetrics,
    readiness::Readiness,
    refresh::{Directory, Refresher},
    snapshot::SnapshotStore,
    telemetry::{LogMetrics, Logs},
    write::Writer,
};

/// Answers an operator's questions and carries out what an operator asks for. Its methods are in the files of this
/// folder, by subject.
#[derive(Debug)]
pub struct Operator {
    /// The snapshot in force, and the extensions in it.
    pub store: Arc<SnapshotStore>,
    /// `None` where there is no HEIR.
    pub client: Option<Arc<HeirClient>>,
    /// `None` where there is no HEIR.
    pub refresher: Option<Arc<Refresher>>,
    /// The write journal.
    pub writer: Arc<Writer>,
    /// Whether lookups can be answered.
    pub readiness: Arc<Readiness>,
    /// Whether the threads that answer the Router run.
    pub heartbeat: Arc<Heartbeat>,
    /// What is scraped.
    pub registry: prometheus::Registry,
    /// The sizes of decisions' tables are brought up to date when metrics are scraped.
    pub intake_metrics: Arc<IntakeMetrics>,
    /// Counts of running instances are brought up to date when metrics are scraped.
    pub extension_metrics: Arc<ExtensionMetrics>,
    /// The log: its filter, and what it lost.
    pub logs: Logs,
    /// Counts of lost lines are brought up to date when metrics are scraped.
    pub log_metrics: Arc<LogMetrics>,
    /// `policies_dir`, where one is configured.
    pub directory: Option<Arc<Directory>>,
    /// Sessions, breakers, estimates, health and buckets.
    pub memory: Arc<Memory>,
}

/// Most entries of one list.
pub const MAX_LISTED: usize = 1_000;

/// How many entries a list may have: 1 to [`MAX_LISTED`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "usize", into = "usize")]
pub struct Limit(usize);

impl Limit {
    /// The number.
    pub const fn get(self) -> usize {
        self.0
    }
}

impl Default for Limit {
    fn default() -> Self {
        Self(MAX_LISTED)
    }
}

/// The number is not one that a list can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InvalidLimit;

impl fmt::Display for InvalidLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "is 1 to {MAX_LISTED}")
    }
}

impl TryFrom<usize> for Limit {
    type Error = InvalidLimit;

    fn try_from(limit: usize) -> Result<Self, InvalidLimit> {
        match limit {
            1..=MAX_LISTED => Ok(Self(limit)),
            _ => Err(InvalidLimit),
        }
    }
}

impl From<Limit> for usize {
    fn from(limit: Limit) -> Self {
        limit.0
    }
}

impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "integer", "minimum": 1, "maximum": MAX_LISTED, "default": MAX_LISTED})
    }
}
