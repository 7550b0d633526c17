//! The durable queue of writes that HEIR has not seen.
//!
//! One file per write, named by its number: written to another name, synced, renamed, directory synced, and only
//! then acknowledged. So a process that is killed at any point leaves each write whole or not at all, and a file
//! that was damaged costs that one write, which is moved aside and reported.
//!
//! Documents stay on the disk. Memory has what is needed to order the writes, and it is what counts while the process
//! lives: where the disk refuses a change, as when it is full, memory goes on and the disk follows once it can. A start
//! that finds the disk behind tries again what was done, which HEIR's version then shows.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use super::{
    config::WritesConfig,
    entry::{
        Base, Entry, EntryId, JournalError, Left, Operation, Reason, State, Stored, Trouble, Unreadable,
    },
    journal_files,
    pending::{Amounts, Pending},
};
use crate::{clock::wall, durable_file, policy::PolicyDocument, snapshot::Key, state_lock::StateLock};

/// All writes that are not done.
#[derive(Debug)]
pub struct Journal {
    /// `None`: nothing outlives the process, so nothing may be acknowledged as queued.
    dir: Option<Arc<Path>>,
    /// What says that the directory is this process's.
    lock: Option<Arc<StateLock>>,
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    pending: Pending,
    last: u64,
    /// Writes that are being written, and their bytes.
    coming: usize,
    coming_bytes: u64,
    most: usize,
    most_bytes: u64,
    /// Writes that no file has yet, with their documents.
    unwritten: HashMap<EntryId, Option<PolicyDocument>>,
    /// Writes that the disk does not have as memory has them.
    unsaved: BTreeSet<EntryId>,
    /// Writes that are done and whose files could not be removed.
    unremoved: BTreeSet<EntryId>,
    /// The directory had to be made again: the files of the writes that wait are gone.
    has_vanished: bool,
}

impl Default for Inner {
    fn default() -> Self {
        let config = WritesConfig::default();
        Self {
            pending: Pending::default(),
            last: 0,
            coming: 0,
            coming_bytes: 0,
            most: config.max_queued,
            most_bytes: config.max_queued_bytes,
            unwritten: HashMap::new(),
            unsaved: BTreeSet::new(),
            unremoved: BTreeSet::new(),
            has_vanished: false,
        }
    }
}

impl Inner {
    fn take(&mut self, id: EntryId) -> Option<Entry> {
        self.unwritten.remove(&id);
        self.unsaved.remove(&id);
        self.pending.take(id)
    }
}

/// A write that HEIR has not seen.
#[derive(Debug)]
pub(super) struct NewWrite {
    pub(super) key: Key,
    /// `None`: a deletion.
    pub(super) document: Option<PolicyDocument>,
    /// What HEIR is believed to have where no other write of the policy waits.
    pub(super) base: Base,
    pub(super) idempotency_key: String,
    /// Whether it can take the place of the write before it: it was accepted whatever that one had made.
    pub(super) replaces: bool,
    /// It was sent, and what came of it is not known.
    pub(super) may_be_in_heir: bool,
}

impl Journal {
    /// A journal that keeps only what an operator should see, for as long as the process lives.
    pub fn in_memory() -> Self {
        Self {
            dir: None,
            lock: None,
            inner: Mutex::default(),
        }
    }

    /// Opens the journal of a state directory. Damaged files are moved aside; what they were is said in sentences.
    ///
    /// # Errors
    /// When the directory is there and cannot be read.
    pub fn open(state_dir: &Path) -> Result<(Self, Vec<String>), JournalError> {
        let dir = state_dir.join("journal");
        if let Err(error) = durable_file::create_dir_all(&dir) {
            // Nothing can be kept, so nothing is taken; lookups go on.
            return Ok((
                Self::in_memory(),
                vec![format!("{} cannot be made: {error}", dir.display())],
            ));
        }
        let found = journal_files::open(&dir).map_err(|source| JournalError::Open {
            path: dir.clone(),
            source,
        })?;
        let mut inner = Inner {
            last: found.last,
            ..Inner::default()
        };
        for entry in found.entries.into_values() {
            inner.pending.insert(entry);
        }
        let journal = Self {
            dir: Some(dir.into()),
            lock: None,
            inner: Mutex::new(inner),
        };
        Ok((journal, found.refused))
    }

    /// Nothing is written unless this says that the directory is this process's.
    #[must_use]
    pub fn locked_by(mut self, lock: Arc<StateLock>) -> Self {
        self.lock = Some(lock);
        self
    }

    /// Whether what it takes outlives the process.
    pub fn is_durable(&self) -> bool {
        self.dir.is_some()
    }

    pub(super) fn set_limits(&self, writes: usize, bytes: u64) {
        let mut inner = self.lock();
        (inner.most, inner.most_bytes) = (writes, bytes);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All writes, oldest first.
    pub fn entries(&self) -> Vec<Entry> {
        self.lock().pending.all().cloned().collect()
    }

    /// How many wait for HEIR, how many for an operator, and how much they take.
    pub fn amounts(&self) -> Amounts {
        self.lock().pending.amounts()
    }

    /// The newest waiting write of each policy.
    pub(super) fn newest_of_each(&self) -> Vec<Entry> {
        self.lock().pending.newest_of_each().cloned().collect()
    }

    /// The write to try now: none that rests, nor one behind it for the same policy. The oldest that has had no trouble,
    /// or else one that has had the least, so that all have their turn. Without one, when the first rest ends.
    pub(super) fn next_queued(&self, now: Instant) -> (Option<Entry>, Option<Instant>) {
        let inner = self.lock();
        let (entry, first_end) = inner.pending.next(now);
        (entry.cloned(), first_end)
    }

    pub(super) fn has_queued(&self, key: &Key) -> bool {
        self.lock().pending.newest(key).is_some()
    }

    /// The newest write that waits for this policy.
    pub(super) fn newest_queued(&self, key: &Key) -> Option<Entry> {
        self.lock().pending.newest(key).cloned()
    }

    /// A write by its number.
    ///
    /// # Errors
    /// When there is none.
    pub fn find(&self, id: EntryId) -> Result<Entry, JournalError> {
        self.lock()
            .pending
            .get(id)
            .cloned()
            .ok_or(JournalError::NotFound(id))
    }

    /// The document of a PUT, from the disk.
    pub(super) fn read_document(&self, id: EntryId) -> Result<PolicyDocument, Unreadable> {
        match &self.dir {
            Some(dir) => journal_files::read_document(dir, id),
            None => Err(Unreadable::Lost("it was not kept".into())),
        }
    }

    /// As [`read_document`](Self::read_document), without holding up other tasks.
    pub(super) async fn document(&self, id: EntryId) -> Result<PolicyDocument, Unreadable> {
        if let Some(Some(document)) = self.lock().unwritten.get(&id) {
            return Ok(document.clone());
        }
        let Some(dir) = self.dir.clone() else {
            return Err(Unreadable::Lost("it was not kept".into()));
        };
        match tokio::task::spawn_blocking(move || journal_files::read_document(&dir, id)).await {
            Ok(read) => read,
            Err(error) => Err(io::Error::other(error).into()),
        }
    }

    /// Takes a write that HEIR has not seen. When this returns, it outlives the process. The caller holds the policy's
    /// lock, so that no write of the policy is under way.
    pub(super) async fn append(&self, new: NewWrite) -> Result<Entry, JournalError> {
        let document = new.document;
        let (mut entry, replaced) = {
            let mut inner = self.lock();
            inner.last += 1;
            let id = EntryId(inner.last);
            let before = inner.pending.newest(&new.key);
            let replaced = before
                .filter(|before| new.replaces && !before.may_be_in_heir && before.base != Base::Any)
                .cloned();
            let (base, on_top_of, replaces_from) = match (&replaced, before) {
                (Some(replaced), _) => (
                    replaced.base.clone(),
                    replaced.on_top_of.clone(),
                    replaced.replaces_from,
                ),
                (None, Some(before)) => (Base::Entry(before.id), Some(Left::by(&before.operation)), id),
                (None, None) => (new.base, None, id),
            };
            let entry = Entry {
                id,
                key: new.key,
                operation: operation(document.as_ref()),
                base,
                on_top_of,
                replaces_from,
                idempotency_key: new.idempotency_key,
                queued_unix_ms: wall().unix_ms,
                state: State::Queued,
                file_bytes: 0,
                may_be_in_heir: new.may_be_in_heir,
                trouble: None,
            };
            (entry, replaced)
        };
        let bytes = document.map_or_else(Default::default, |document| document.bytes().clone());
        let line = journal_files::first_line(&entry, &bytes).map_err(JournalError::Write)?;
        entry.file_bytes = (line.len() + bytes.len()) as u64;
        self.reserve(&entry, replaced.as_ref())?;
        let id = entry.id;
        let written = self
            .on_disk(move |dir| journal_files::write(dir, id, &line, &bytes))
            .await;
        {
            let mut inner = self.lock();
            inner.coming -= 1;
            inner.coming_bytes -= entry.file_bytes;
            written?;
            inner.pending.insert(entry.clone());
            if let Some(replaced) = &replaced {
                inner.take(replaced.id);
            }
        }
        if let Some(replaced) = replaced {
            self.remove_files(replaced.id).await;
        }
        Ok(entry)
    }

    /// Counts a write that is about to be written, if there is room for it.
    fn reserve(&self, entry: &Entry, replaced: Option<&Entry>) -> Result<(), JournalError> {
        let mut inner = self.lock();
        let count = inner.pending.len() + inner.coming - usize::from(replaced.is_some());
        if count >= inner.most {
            return Err(JournalError::Full(inner.most));
        }
        let freed = replaced.map_or(0, |replaced| replaced.file_bytes);
        let bytes = inner.pending.bytes() + inner.coming_bytes - freed;
        if bytes + entry.file_bytes > inner.most_bytes {
            return Err(JournalError::FullOfBytes(inner.most_bytes));
        }
        inner.coming += 1;
        inner.coming_bytes += entry.file_bytes;
        Ok(())
    }

    /// Takes a write that HEIR has lost, for the operator. A write that was acknowledged can only be kept: what limits
    /// refuse is to acknowledge another, and where the disk refuses, memory keeps it until the disk can.
    pub(super) async fn append_lost(
        &self,
        key: Key,
        document: Option<PolicyDocument>,
        detail: String,
    ) -> Entry {
        let entry = {
            let mut inner = self.lock();
            inner.last += 1;
            let id = EntryId(inner.last);
            let entry = Entry {
                id,
                key,
                operation: operation(document.as_ref()),
                base: Base::Unknown,
                on_top_of: None,
                replaces_from: id,
                idempotency_key: new_idempotency_key(),
                queued_unix_ms: wall().unix_ms,
                state: State::Conflict {
                    reason: Reason::LostInRestore,
                    detail,
                },
                file_bytes: document
                    .as_ref()
                    .map_or(0, |document| document.bytes().len() as u64),
                may_be_in_heir: false,
                trouble: None,
            };
            inner.unwritten.insert(id, document);
            inner.pending.insert(entry.clone());
            entry
        };
        self.save(entry.id).await;
        entry
    }

    async fn on_disk(
        &self,
        work: impl FnOnce(&Path) -> io::Result<()> + Send + 'static,
    ) -> Result<(), JournalError> {
        let Some(dir) = self.dir.clone() else {
            return Ok(());
        };
        let lock = self.lock.clone();
        let in_dir = move || {
            lock.map_or(Ok(()), |lock| lock.hold())?;
            let made_again = journal_files::make_again(&dir)?;
            Ok((made_again, work(&dir)))
        };
        match tokio::task::spawn_blocking(in_dir).await {
            Ok(Ok((made_again, result))) => {
                self.lock().has_vanished |= made_again;
                result.map_err(JournalError::Write)
            }
            Ok(Err(error)) => Err(JournalError::Write(error)),
            Err(error) => Err(JournalError::Write(io::Error::other(error))),
        }
    }

    /// Makes the directory again where it has vanished. Whether the files of the writes that wait are gone, which is said
    /// once.
    pub(super) async fn has_vanished(&self) -> bool {
        if self.dir.is_none() || self.lock().pending.len() == 0 {
            return false;
        }
        // Where it cannot be made, there is another time.
        let _not_now = self.on_disk(|_| Ok(())).await;
        std::mem::take(&mut self.lock().has_vanished)
    }

    /// Writes the file of a write that waits anew, with what it stores.
    pub(super) async fn write_again(&self, id: EntryId, document: Option<PolicyDocument>) {
        self.lock().unwritten.insert(id, document);
        self.save(id).await;
    }

    /// Writes what is new about a write.
    async fn persist(&self, entry: Entry) -> Result<(), JournalError> {
        let unwritten = self.lock().unwritten.get(&entry.id).cloned();
        let id = entry.id;
        self.on_disk(move |dir| match unwritten {
            None => journal_files::write_state(dir, &entry),
            Some(document) => {
                let bytes = document.map_or_else(Default::default, |document| document.bytes().clone());
                let line = journal_files::first_line(&entry, &bytes)?;
                journal_files::write(dir, entry.id, &line, &bytes)
            }
        })
        .await?;
        if self.dir.is_some() {
            self.lock().unwritten.remove(&id);
        }
        Ok(())
    }

    /// Brings the disk to what memory has of a write; at the next occasion if it cannot be done now.
    async fn save(&self, id: EntryId) {
        let Ok(entry) = self.find(id) else { return };
        let saved = self.persist(entry).await;
        let mut inner = self.lock();
        match saved {
            Ok(()) => {
                inner.unsaved.remove(&id);
            }
            Err(error) => {
                if inner.pending.get(id).is_some() && inner.unsaved.insert(id) {
                    tracing::error!(
                        error = error.chain(),
                        id = id.0,
                        "The journal cannot be written; memory goes on, and the disk follows once it can."
                    );
                }
            }
        }
    }

    /// Removes the files of a write that is done; at the next occasion if it cannot be done now.
    async fn remove_files(&self, id: EntryId) {
        let removed = self.on_disk(move |dir| journal_files::remove(dir, id)).await;
        let mut inner = self.lock();
        match removed {
            Ok(()) => {
                inner.unremoved.remove(&id);
            }
            Err(error) => {
                if inner.unremoved.insert(id) {
                    tracing::error!(
                        error = error.chain(),
                        id = id.0,
                        "The file of a write that is done cannot be removed yet."
                    );
                }
            }
        }
    }

    /// Whether the disk is behind.
    pub(super) fn is_behind(&self) -> bool {
        let inner = self.lock();
        !inner.unsaved.is_empty() || !inner.unremoved.is_empty()
    }

    /// Does on the disk what could not be done before.
    pub(super) async fn catch_up(&self) {
        let (unremoved, unsaved) = {
            let inner = self.lock();
            (inner.unremoved.clone(), inner.unsaved.clone())
        };
        for id in unremoved {
            self.remove_files(id).await;
        }
        for id in unsaved {
            self.save(id).await;
        }
    }

    /// Forgets a write that is done. Those that were made on top of it now stand on `base`.
    pub(super) async fn done(&self, id: EntryId, base: Base) {
        let dependents = {
            let mut inner = self.lock();
            match inner.take(id) {
                Some(taken) => inner.pending.stand_on(&taken, &base, None),
                None => Vec::new(),
            }
        };
        // Room first: what comes then may need it.
        self.remove_files(id).await;
        for dependent in dependents {
            self.save(dependent).await;
        }
    }

    /// Gives a write up. Those that were made on top of it now stand on what it stood on.
    pub(super) async fn discard(&self, id: EntryId) -> Result<Entry, JournalError> {
        self.find(id)?;
        self.on_disk(move |dir| journal_files::remove(dir, id)).await?;
        let (entry, dependents) = {
            let mut inner = self.lock();
            let entry = inner.take(id).ok_or(JournalError::NotFound(id))?;
            let dependents = inner
                .pending
                .stand_on(&entry, &entry.base, entry.on_top_of.as_ref());
            (entry, dependents)
        };
        for dependent in dependents {
            self.save(dependent).await;
        }
        Ok(entry)
    }

    /// Leaves a write to the operator.
    pub(super) async fn set_conflict(&self, id: EntryId, reason: Reason, detail: String) {
        let changed = self
            .lock()
            .pending
            .change(id, |entry| entry.state = State::Conflict { reason, detail });
        if changed.is_some() {
            self.save(id).await;
        }
    }

    /// Puts a conflict back into the queue, to be made over whatever HEIR has.
    pub(super) async fn requeue(&self, id: EntryId) -> Result<Entry, JournalError> {
        let before = self.find(id)?;
        if before.state == State::Queued {
            return Err(JournalError::StillQueued(id));
        }
        if matches!(before.operation, Operation::Put(_)) {
            self.document(id).await.map_err(|reason| JournalError::Damaged {
                id,
                reason: reason.to_string(),
            })?;
        }
        let after = Entry {
            state: State::Queued,
            base: Base::Any,
            on_top_of: None,
            // HEIR may have answered the old key with its refusal.
            idempotency_key: new_idempotency_key(),
            trouble: None,
            ..before
        };
        self.persist(after.clone()).await?;
        self.lock()
            .pending
            .change(id, |entry| *entry = after)
            .ok_or(JournalError::NotFound(id))
    }

    /// Notes on the disk which version of HEIR's a write whose base is [`Base::Any`] is about to replace, so that a
    /// start after a crash does not take it for permission to replace a later one.
    pub(super) async fn pin(&self, id: EntryId, base: Base) {
        let Ok(entry) = self.find(id) else { return };
        if let Err(error) = self.persist(Entry { base, ..entry }).await {
            tracing::error!(error = error.chain(), id = id.0, "The journal cannot be written.");
        }
    }

    /// HEIR may have a write from here on, whatever is heard of it.
    pub(super) fn note_sent(&self, id: EntryId) {
        // One that is gone needs no note.
        let _gone = self
            .lock()
            .pending
            .change(id, |entry| entry.may_be_in_heir = true);
    }

    /// An attempt has failed.
    pub(super) fn note_trouble(&self, id: EntryId, trouble: Trouble) {
        let _gone = self
            .lock()
            .pending
            .change(id, |entry| entry.trouble = Some(trouble));
    }

    /// HEIR takes writes again: none rests any longer for what it said before.
    pub(super) fn end_rests(&self) {
        self.lock().pending.end_rests();
    }
}

fn operation(document: Option<&PolicyDocument>) -> Operation {
    document.map_or(Operation::Delete, |document| {
        Operation::Put(Stored {
            etag: document.etag().clone(),
            bytes: document.bytes().len(),
        })
    })
}

pub(super) fn new_idempotency_key() -> String {
    format!("{:032x}", fastrand::u128(..))
}

#[cfg(test)]
#[path = "journal_tests.rs"]
mod tests;
