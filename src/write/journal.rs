//! The durable queue of writes that HEIR has not seen.
//!
//! One file per write, named by its number: written to another name, synced, renamed, directory synced, and only
//! then acknowledged. So a process that is killed at any point leaves each write whole or not at all, and a file
//! that was damaged costs that one write, which is moved aside and reported.

use std::{
    collections::{BTreeMap, HashSet},
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    clock::now,
    durable_file,
    policy::{ETag, PolicyDocument},
    snapshot::Key,
};

const FORMAT: u32 = 1;

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
    /// Store this document.
    Put(PolicyDocument),
    /// Delete the policy.
    Delete,
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
    /// Sent with every attempt, so that HEIR makes the write once.
    pub idempotency_key: String,
    /// When it was queued.
    pub queued_unix_ms: u64,
    /// Where it stands.
    pub state: State,
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
    /// There are as many writes as the configuration allows.
    #[error("the journal has reached its limit of {0} writes")]
    Full(usize),
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

/// A file's first line; what a PUT stores follows it.
#[derive(Debug, Serialize, Deserialize)]
struct Header {
    format: u32,
    /// Of the JSON of `write` and the document, in hex.
    sha256: String,
    write: Box<serde_json::value::RawValue>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Write {
    id: EntryId,
    tenant_id: crate::policy::TenantId,
    policy_id: crate::policy::PolicyId,
    op: Op,
    etag: Option<ETag>,
    base: Base,
    idempotency_key: String,
    queued_unix_ms: u64,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Op {
    Put,
    /// Delete the policy.
    Delete,
}

/// All writes that are not done.
#[derive(Debug)]
pub struct Journal {
    /// `None`: nothing outlives the process, so nothing may be acknowledged as queued.
    dir: Option<Arc<Path>>,
    limit: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    entries: BTreeMap<EntryId, Entry>,
    last: u64,
}

impl Journal {
    /// A journal that keeps only what an operator should see, for as long as the process lives.
    pub fn in_memory() -> Self {
        Self {
            dir: None,
            limit: AtomicUsize::new(10_000),
            inner: Mutex::default(),
        }
    }

    /// Opens the journal of a state directory. Damaged files are moved aside; what they were is said in sentences.
    pub fn open(state_dir: &Path) -> Result<(Self, Vec<String>), JournalError> {
        let dir = state_dir.join("journal");
        let failed = |source| JournalError::Open {
            path: dir.clone(),
            source,
        };
        if let Err(error) = fs::create_dir_all(&dir) {
            // Nothing can be kept, so nothing is taken; lookups go on.
            return Ok((
                Self::in_memory(),
                vec![format!("{} cannot be made: {error}", dir.display())],
            ));
        }
        let (mut inner, mut refused) = (Inner::default(), Vec::new());
        for file in fs::read_dir(&dir).map_err(failed)? {
            let path = file.map_err(failed)?.path();
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            if name.starts_with('.') {
                // Left over from a write that was never acknowledged.
                if let Err(error) = fs::remove_file(&path) {
                    refused.push(format!("{} cannot be removed: {error}", path.display()));
                }
                continue;
            }
            let Some((number, kind)) = name
                .split_once('.')
                .and_then(|(number, kind)| Some((number.parse::<u64>().ok()?, kind)))
            else {
                continue;
            };
            // A number is not used again even if its file is damaged, or was when an earlier run found it.
            inner.last = inner.last.max(number);
            if kind != "write" {
                continue;
            }
            match read(&path) {
                Ok(entry) => {
                    inner.entries.insert(entry.id, entry);
                }
                Err(reason) => {
                    let aside = path.with_extension("damaged");
                    let moved = fs::rename(&path, &aside);
                    let moved = moved.map_or_else(
                        |error| error.to_string(),
                        |()| format!("moved to {}", aside.display()),
                    );
                    refused.push(format!("{} is damaged ({reason}); {moved}", path.display()));
                }
            }
        }
        let journal = Self {
            dir: Some(dir.into()),
            limit: AtomicUsize::new(10_000),
            inner: Mutex::new(inner),
        };
        Ok((journal, refused))
    }

    /// Whether what it takes outlives the process.
    pub fn is_durable(&self) -> bool {
        self.dir.is_some()
    }

    pub(super) fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All writes, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().entries.values().cloned().collect()
    }

    /// The writes that wait for HEIR, oldest first.
    pub fn queued(&self) -> Vec<Entry> {
        self.lock()
            .entries
            .values()
            .filter(|entry| entry.state == State::Queued)
            .cloned()
            .collect()
    }

    /// How many wait for HEIR, and how many for an operator.
    pub fn counts(&self) -> (usize, usize) {
        let inner = self.lock();
        let queued = inner
            .entries
            .values()
            .filter(|entry| entry.state == State::Queued)
            .count();
        (queued, inner.entries.len() - queued)
    }

    /// The oldest write that may be tried: none that rests, nor one behind it for the same policy.
    pub(super) fn next_queued(&self, rests: impl Fn(EntryId) -> bool) -> Option<Entry> {
        let inner = self.lock();
        let mut behind = HashSet::new();
        let queued = inner
            .entries
            .values()
            .filter(|entry| entry.state == State::Queued);
        for entry in queued {
            if rests(entry.id) {
                behind.insert(&entry.key);
            } else if !behind.contains(&entry.key) {
                return Some(entry.clone());
            }
        }
        None
    }

    pub(super) fn has_queued(&self, key: &Key) -> bool {
        self.last_queued(key).is_some()
    }

    /// The newest write that waits for this policy.
    pub(super) fn last_queued(&self, key: &Key) -> Option<EntryId> {
        let inner = self.lock();
        inner
            .entries
            .values()
            .rev()
            .find(|entry| entry.state == State::Queued && entry.key == *key)
            .map(|entry| entry.id)
    }

    /// A write by its number.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, id: EntryId) -> Result<Entry, JournalError> {
        self.lock()
            .entries
            .get(&id)
            .cloned()
            .ok_or(JournalError::NotFound(id))
    }

    /// Takes a write that HEIR has not seen. When this returns, it outlives the process.
    pub(super) async fn append(
        &self,
        key: Key,
        operation: Operation,
        base: Base,
        idempotency_key: String,
    ) -> Result<Entry, JournalError> {
        self.add(key, operation, base, idempotency_key, State::Queued)
            .await
    }

    /// Takes a write that HEIR has lost, for the operator.
    pub(super) async fn append_lost(
        &self,
        key: Key,
        operation: Operation,
        detail: String,
    ) -> Result<Entry, JournalError> {
        let state = State::Conflict {
            reason: Reason::LostInRestore,
            detail,
        };
        self.add(
            key,
            operation,
            Base::Unknown,
            format!("{:032x}", fastrand::u128(..)),
            state,
        )
        .await
    }

    async fn add(
        &self,
        key: Key,
        operation: Operation,
        base: Base,
        idempotency_key: String,
        state: State,
    ) -> Result<Entry, JournalError> {
        let id = {
            let mut inner = self.lock();
            let limit = self.limit.load(Relaxed);
            // A write that was acknowledged can only be kept; what is refused is to acknowledge another.
            if state == State::Queued && inner.entries.len() >= limit {
                return Err(JournalError::Full(limit));
            }
            inner.last += 1;
            EntryId(inner.last)
        };
        let entry = Entry {
            id,
            key,
            operation,
            base,
            idempotency_key,
            queued_unix_ms: now().unix_ms,
            state,
        };
        self.keep(entry).await
    }

    async fn keep(&self, entry: Entry) -> Result<Entry, JournalError> {
        self.on_disk({
            let entry = entry.clone();
            move |dir| write(dir, &entry)
        })
        .await?;
        self.lock().entries.insert(entry.id, entry.clone());
        Ok(entry)
    }

    async fn on_disk(
        &self,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), JournalError> {
        let Some(dir) = self.dir.clone() else {
            return Ok(());
        };
        match tokio::task::spawn_blocking(move || work(&dir)).await {
            Ok(result) => result.map_err(JournalError::Write),
            Err(error) => Err(JournalError::Write(io::Error::other(error))),
        }
    }

    /// Forgets a write that is done, or given up.
    pub(super) async fn remove(&self, id: EntryId) -> Result<Entry, JournalError> {
        let entry = self.find(id)?;
        self.on_disk(move |dir| durable_file::remove(&path_of(dir, id)))
            .await?;
        self.lock().entries.remove(&id);
        Ok(entry)
    }

    /// Leaves a write to the operator.
    pub(super) async fn set_conflict(
        &self,
        id: EntryId,
        reason: Reason,
        detail: String,
    ) -> Result<Entry, JournalError> {
        let entry = self.find(id)?;
        self.keep(Entry {
            state: State::Conflict { reason, detail },
            ..entry
        })
        .await
    }

    /// Puts a conflict back into the queue, to be made over whatever HEIR has.
    pub(super) async fn requeue(&self, id: EntryId) -> Result<Entry, JournalError> {
        let entry = self.find(id)?;
        if entry.state == State::Queued {
            return Err(JournalError::StillQueued(id));
        }
        // HEIR may have answered the old key with its refusal.
        let idempotency_key = format!("{:032x}", fastrand::u128(..));
        self.keep(Entry {
            state: State::Queued,
            base: Base::Any,
            idempotency_key,
            ..entry
        })
        .await
    }

    /// A write that others were based on has been made: HEIR now has this version.
    pub(super) async fn rebase(&self, done: EntryId, base: Base) -> Result<(), JournalError> {
        let dependents: Vec<Entry> = self
            .lock()
            .entries
            .values()
            .filter(|entry| entry.base == Base::Entry(done))
            .cloned()
            .collect();
        for entry in dependents {
            self.keep(Entry {
                base: base.clone(),
                ..entry
            })
            .await?;
        }
        Ok(())
    }
}

fn path_of(dir: &Path, id: EntryId) -> PathBuf {
    dir.join(format!("{:020}.write", id.0))
}

fn write(dir: &Path, entry: &Entry) -> io::Result<()> {
    use io::Write as _;
    let (op, etag, document) = match &entry.operation {
        Operation::Put(document) => (Op::Put, Some(document.etag().clone()), document.bytes().clone()),
        Operation::Delete => (Op::Delete, None, Bytes::new()),
    };
    let write = Write {
        id: entry.id,
        tenant_id: entry.key.0.clone(),
        policy_id: entry.key.1.clone(),
        op,
        etag,
        base: entry.base.clone(),
        idempotency_key: entry.idempotency_key.clone(),
        queued_unix_ms: entry.queued_unix_ms,
        state: entry.state.clone(),
    };
    let write = serde_json::value::to_raw_value(&write)?;
    let header = Header {
        format: FORMAT,
        sha256: checksum(write.get(), &document),
        write,
    };
    durable_file::replace(&path_of(dir, entry.id), ".write", |file| {
        serde_json::to_writer(&mut *file, &header)?;
        file.write_all(b"\n")?;
        file.write_all(&document)
    })?;
    Ok(())
}

fn checksum(write: &str, document: &[u8]) -> String {
    let mut digest = Sha256::new();
    digest.update(write.as_bytes());
    digest.update(document);
    hex::encode(digest.finalize())
}

fn read(path: &Path) -> Result<Entry, String> {
    let content = Bytes::from(fs::read(path).map_err(|error| error.to_string())?);
    let end = content
        .iter()
        .position(|byte| *byte == b'\n')
        .ok_or("it has no header")?;
    let header: Header = serde_json::from_slice(&content[..end]).map_err(|error| error.to_string())?;
    if header.format != FORMAT {
        return Err(format!("format {} is not known", header.format));
    }
    let document = content.slice(end + 1..);
    if checksum(header.write.get(), &document) != header.sha256 {
        return Err("its checksum is not that of its content".into());
    }
    let write: Write = serde_json::from_str(header.write.get()).map_err(|error| error.to_string())?;
    let operation = match write.op {
        Op::Put => Operation::Put(PolicyDocument::trusted(document, write.etag)),
        Op::Delete => Operation::Delete,
    };
    Ok(Entry {
        id: write.id,
        key: (write.tenant_id, write.policy_id),
        operation,
        base: write.base,
        idempotency_key: write.idempotency_key,
        queued_unix_ms: write.queued_unix_ms,
        state: write.state,
    })
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
