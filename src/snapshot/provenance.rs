//! How much of HEIR a snapshot covers, where that came from, and which point of HEIR's history it is.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// How much absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coverage {
    /// Only what was asked for is known; an unknown policy may exist.
    Keys,
    /// The tenants that were listed are known whole.
    Tenants,
    /// Everything is known: what is absent does not exist.
    Whole,
}

/// Where HEIR's part of a snapshot came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "SnapshotOrigin")]
pub enum Origin {
    /// Nothing has come from HEIR yet.
    None,
    /// From the disk, written by an earlier run.
    Disk,
    /// From HEIR itself, by this run.
    Heir,
}

/// A place in HEIR's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// `None` where HEIR keeps no revisions.
    pub revision: Option<u64>,
    /// Digest over the history up to here, where HEIR keeps one.
    pub chain: Option<Arc<str>>,
}
