//! The write journal: what waits for HEIR, and what waits for an operator's decision.

use schemars::JsonSchema;
use serde::Serialize;

use super::operator::Operator;
use crate::{
    failure::{ErrorCode, Failure},
    policy::{ETag, PolicyId, TenantId},
    write::{self, Base, Entry, EntryId, JournalError, Operation},
};

/// The write journal.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Journal {
    /// Whether the writes outlive the process.
    pub durable: bool,
    /// Writes that wait for HEIR.
    pub queued: usize,
    /// Writes that wait for an operator.
    pub conflicts: usize,
    /// Bytes of both on the disk; `writes.max_queued_bytes` limits them.
    pub bytes: u64,
    /// Every write in the journal.
    pub writes: Vec<WriteEntry>,
}

/// One write.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct WriteEntry {
    /// Identifies the write in the journal.
    pub id: EntryId,
    /// The tenant of the policy.
    pub tenant_id: TenantId,
    /// The policy that is written.
    pub policy_id: PolicyId,
    /// What is to be done in HEIR.
    pub op: WriteOperation,
    /// Of the document that is written.
    pub etag: Option<ETag>,
    /// Of the document that is written.
    pub bytes: Option<usize>,
    /// What HEIR was believed to have.
    pub base: Base,
    /// Unix milliseconds at which the write was accepted.
    pub queued_unix_ms: u64,
    /// Queued, or in conflict and why.
    pub status: write::State,
    /// Attempts that HEIR failed on or refused, though it was there, since the start of this process;
    /// `writes.max_attempts` limits them.
    pub attempts: u32,
    /// What went wrong at the last attempt.
    pub last_error: Option<String>,
}

/// What is to be done in HEIR.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WriteOperation {
    /// Create or replace the policy.
    Put,
    /// Delete the policy.
    Delete,
}

/// A write that was settled.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct Settled {
    /// Always `true`.
    pub ok: bool,
    /// The write as it was settled.
    pub write: WriteEntry,
}

impl Operator {
    /// Everything that is in the journal.
    pub fn writes(&self) -> Journal {
        let journal = self.writer.journal();
        let amounts = journal.amounts();
        Journal {
            durable: journal.is_durable(),
            queued: amounts.queued,
            conflicts: amounts.conflicts,
            bytes: amounts.bytes,
            writes: journal.entries().iter().map(WriteEntry::of).collect(),
        }
    }

    /// Gives a write up.
    ///
    /// # Errors
    /// `not_found`: there is no such write. `journal_unavailable`: the journal cannot be written.
    pub async fn discard_write(&self, id: EntryId) -> Result<Settled, Failure> {
        settled(self.writer.discard(id).await)
    }

    /// Puts a conflicting write back into the queue, to be made over whatever HEIR has.
    ///
    /// # Errors
    /// As [`discard_write`](Self::discard_write), and `conflict`: it is queued already, or its document is lost.
    pub async fn retry_write(&self, id: EntryId) -> Result<Settled, Failure> {
        settled(self.writer.retry(id).await)
    }
}

fn settled(settled: Result<Entry, JournalError>) -> Result<Settled, Failure> {
    match settled {
        Ok(entry) => Ok(Settled {
            ok: true,
            write: WriteEntry::of(&entry),
        }),
        Err(error @ JournalError::NotFound(_)) => Err(Failure::new(ErrorCode::NotFound, error.to_string())),
        Err(error @ (JournalError::StillQueued(_) | JournalError::Damaged { .. })) => {
            Err(Failure::new(ErrorCode::Conflict, error.to_string()))
        }
        Err(error) => {
            tracing::error!(error = error.chain(), "The journal cannot be written.");
            Err(Failure::new(ErrorCode::JournalUnavailable, error.to_string()))
        }
    }
}

impl WriteEntry {
    fn of(entry: &Entry) -> Self {
        let (op, stored) = match &entry.operation {
            Operation::Put(stored) => (WriteOperation::Put, Some(stored)),
            Operation::Delete => (WriteOperation::Delete, None),
        };
        Self {
            id: entry.id,
            tenant_id: entry.key.0.clone(),
            policy_id: entry.key.1.clone(),
            op,
            etag: stored.map(|stored| stored.etag.clone()),
            bytes: stored.map(|stored| stored.bytes),
            base: entry.base.clone(),
            queued_unix_ms: entry.queued_unix_ms,
            status: entry.state.clone(),
            attempts: entry.attempts(),
            last_error: entry.trouble.as_ref().map(|trouble| trouble.error.clone()),
        }
    }
}
