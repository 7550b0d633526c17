//! What refreshes come to, one by one and on the whole.

use std::sync::Arc;

use serde::Serialize;

use crate::{
    heir::{HeirError, Level},
    snapshot::{Snapshot, Withheld},
};

/// What a refresh came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "RefreshOutcome")]
pub enum Outcome {
    /// The snapshot is another one.
    Changed,
    /// HEIR has what the snapshot has.
    Unchanged,
}

/// Why a refresh changed nothing although it should have.
#[derive(Debug, thiserror::Error)]
pub enum RefreshError {
    /// HEIR could not be asked, or its answer not be used.
    #[error(transparent)]
    Heir(#[from] HeirError),
    /// HEIR's answer was not taken.
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
            Self::Withheld(withheld) => withheld.to_string(),
        }
    }
}

/// HEIR lost a part of its history: what was in memory before it did.
#[derive(Debug)]
pub struct Restored {
    /// The snapshot that knows what HEIR has lost.
    pub before: Arc<Snapshot>,
}

/// How the refreshing goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RefreshState {
    /// HEIR has not answered since the start.
    Connecting,
    /// The last refresh succeeded.
    Live,
    /// The last refresh succeeded, but not for every tenant and policy.
    Partial,
    /// The last refresh failed; memory is served.
    Interrupted,
    /// HEIR's answer waits for its confirmation. On the admin page it is called `held`.
    #[serde(rename = "held")]
    Withheld,
}

/// What the admin page shows.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[schemars(rename = "RefreshStatus")]
pub struct Status {
    /// How it goes now.
    pub state: RefreshState,
    /// The calls that HEIR has, once they are known.
    pub level: Option<Level>,
    /// What the last refresh that succeeded came to.
    pub outcome: Option<Outcome>,
    /// When that was.
    pub last_success_unix_ms: Option<u64>,
    /// The last error with its causes.
    pub last_error: Option<String>,
    /// When that was.
    pub last_error_unix_ms: Option<u64>,
}
