//! One write that is not done, and why the journal may refuse one.

use std::{io, path::PathBuf, time::Instant};

use serde::{Deserialize, Serialize};

use crate::{policy::ETag, snapshot::Key};

/// A write's number; later writes have higher ones, also over restarts.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, schemars::JsonSchema,
)]
#[serde(transparent)]
#[schemars(rename = "WriteId")]
pub struct EntryId(pub u64);

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// Store the document that is in the journal's file.
    Put(Stored),
    /// Delete the policy.
    Delete,
}

/// A document that is in the journal's file and not in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The document's tag.
    pub etag: ETag,
    /// The document's length.
    pub bytes: usize,
}

/// What the writer believed HEIR to have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "WriteBase")]
pub enum Base {
    /// This version.
    Document(ETag),
    /// The result of an earlier write that waits as well.
    Entry(EntryId),
    /// Nothing.
    Absent,
    /// It was not known.
    Unknown,
    /// Whatever it has: an operator said so.
    Any,
}

/// What an earlier write leaves in HEIR once it is made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Left {
    Document(ETag),
    Nothing,
}

impl Left {
    pub(super) fn by(operation: &Operation) -> Self {
        match operation {
            Operation::Put(stored) => Self::Document(stored.etag.clone()),
            Operation::Delete => Self::Nothing,
        }
    }

    pub(super) fn base(self) -> Base {
        match self {
            Self::Document(etag) => Base::Document(etag),
            Self::Nothing => Base::Absent,
        }
    }
}

/// Why a write waits for an operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ConflictReason")]
pub enum Reason {
    /// Another writer changed the policy in HEIR in the meantime; HEIR's version is kept.
    ChangedInHeir,
    /// HEIR does not take it.
    RefusedByHeir,
    /// HEIR had acknowledged it and lost it when it was restored from a backup.
    LostInRestore,
    /// Its file in the journal has vanished or is damaged, so that its document is lost.
    Damaged,
}

/// Where a write stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case", tag = "state")]
#[schemars(rename = "WriteState")]
pub enum State {
    /// It waits for HEIR.
    Queued,
    /// It waits for an operator; `detail` is for a person.
    Conflict {
        /// Why it waits.
        reason: Reason,
        /// A sentence for a person.
        detail: String,
    },
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its number.
    pub id: EntryId,
    /// The policy.
    pub key: Key,
    /// What is to be done.
    pub operation: Operation,
    /// What the writer believed HEIR to have.
    pub base: Base,
    /// What the write that `base` names leaves, should its file be gone at the next start, because it was made.
    pub(super) on_top_of: Option<Left>,
    /// Waiting writes of the same policy from this number on are replaced by this one.
    pub(super) replaces_from: EntryId,
    /// Sent with every attempt, so that HEIR makes the write once.
    pub idempotency_key: String,
    /// When it was queued.
    pub queued_unix_ms: u64,
    /// Where it stands.
    pub state: State,
    /// Bytes of its file.
    pub(super) file_bytes: u64,
    /// HEIR may have it already, so a later write cannot take its place.
    pub(super) may_be_in_heir: bool,
    /// The attempts that failed since the start of this process.
    pub trouble: Option<Trouble>,
}

/// Attempts that failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    /// How many of them count: not those that failed because HEIR was away altogether.
    pub attempts: u32,
    /// What went wrong at the last one.
    pub error: String,
    /// Before this moment there is no other attempt.
    pub(super) rests_until: Option<Instant>,
}

impl Entry {
    /// Whether it is not to be tried now.
    pub(super) fn rests(&self, now: Instant) -> bool {
        self.rests_until().is_some_and(|until| now < until)
    }

    /// How many attempts have failed, as far as they count.
    pub fn attempts(&self) -> u32 {
        self.trouble.as_ref().map_or(0, |trouble| trouble.attempts)
    }

    pub(super) fn rests_until(&self) -> Option<Instant> {
        self.trouble.as_ref()?.rests_until
    }
}

/// Why a waiting document cannot be had from the disk.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// It never will be.
    #[error("{0}")]
    Lost(String),
    /// It may be another time.
    #[error("its file cannot be read: {0}")]
    NotNow(#[from] io::Error),
}

/// Why the journal cannot do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum JournalError {
    /// There is no such write.
    #[error("there is no write with the id {}", .0.0)]
    NotFound(EntryId),
    /// The write is no conflict.
    #[error("the write {} still waits for HEIR", .0.0)]
    StillQueued(EntryId),
    /// The write's document is lost, so it can only be discarded.
    #[error("the document of the write {} is lost: {reason}", .id.0)]
    Damaged {
        /// The write.
        id: EntryId,
        /// What is wrong with its file.
        reason: String,
    },
    /// There are as many writes as the configuration allows.
    #[error("the journal has reached its limit of {0} writes (writes.max_queued)")]
    Full(usize),
    /// The files have as many bytes as the configuration allows.
    #[error("the journal has reached its limit of {0} bytes (writes.max_queued_bytes)")]
    FullOfBytes(u64),
    /// The disk refused.
    #[error("the journal cannot be written")]
    Write(#[source] io::Error),
    /// The directory cannot be read at the start.
    #[error("the journal in {path} cannot be read")]
    Open {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl JournalError {
    /// The error and its cause in one line.
    pub fn chain(&self) -> String {
        crate::telemetry::chain(self)
    }
}
