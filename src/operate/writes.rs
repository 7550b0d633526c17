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
        let (queued, conflicts) = journal.counts();
        Journal {
            durable: journal.is_durable(),
            queued,
            conflicts,
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
    /// As [`discard_write`](Self::discard_write), and `conflict`: it is queued already.
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
        Err(error @ JournalError::StillQueued(_)) => {
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
        let (op, document) = match &entry.operation {
            Operation::Put(document) => (WriteOperation::Put, Some(document)),
            Operation::Delete => (WriteOperation::Delete, None),
        };
        Self {
            id: entry.id,
            tenant_id: entry.key.0.clone(),
            policy_id: entry.key.1.clone(),
            op,
            etag: document.map(|document| document.etag().clone()),
            bytes: document.map(|document| document.bytes().len()),
            base: entry.base.clone(),
            queued_unix_ms: entry.queued_unix_ms,
            status: entry.state.clone(),
        }
    }
}
