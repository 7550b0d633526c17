//! Writes that HEIR has acknowledged, to find those that it loses again.
//!
//! A HEIR that is restored from a backup has forgotten what it acknowledged after the backup was made. The sidecar has
//! not: the ledger says which versions were written through here, and their bytes are in the snapshot from before the
//! restore, or in the ledger's file until a disk snapshot has them. With a state directory all of that outlives the
//! process, and a disk snapshot that was written is the occasion to drop what is not needed any more.

use std::{
    collections::{BTreeMap, HashMap},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus::IntCounter;

use super::ledger_file::{LedgerFile, Located, Place, Record};
use crate::{
    policy::{ETag, PolicyDocument},
    snapshot::{Key, Policy, Snapshot},
};

/// Most policies whose last write is remembered; beyond them the oldest write is forgotten.
const MOST_POLICIES: usize = 100_000;

/// The last acknowledged write of each policy.
#[derive(Debug)]
pub struct Ledger {
    writes: Arc<Mutex<Writes>>,
    /// `None`: nothing outlives the process. Locked before `writes`, where both are.
    file: Arc<Mutex<Option<LedgerFile>>>,
    evictions: IntCounter,
}

#[derive(Debug, Default)]
struct Writes {
    by_key: HashMap<Key, Noted>,
    /// The policies by the number of their write, oldest first.
    order: BTreeMap<u64, Key>,
    last: u64,
    most: usize,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Noted {
    number: u64,
    /// What it left; `None`: it deleted the policy.
    effect: Option<ETag>,
    /// HEIR's revision that it made, where HEIR has revisions.
    revision: Option<u64>,
    /// Where the file has the document; no disk snapshot has it yet.
    document: Option<Place>,
}

/// A write that HEIR has forgotten.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) key: Key,
    /// What it had left; `None`: it had deleted the policy, which was restored with the rest.
    pub(super) effect: Option<ETag>,
    number: u64,
    document: Option<Place>,
}

impl Noted {
    /// Whether it was the last write before a restore, as far as a snapshot from before it tells. That may be one of the disk,
    /// and older than this write although its revision is higher: from a history of HEIR that an earlier restore had ended.
    /// Then it has an older version of the policy, or none, and this write's document was in no snapshot yet.
    fn was_in_force(&self, before: &Snapshot, key: &Key) -> bool {
        if in_heir(before, key) == self.effect || self.revision > before.position().revision {
            return true;
        }
        match before.heir(key.0.as_str(), key.1.as_str()) {
            Some(policy) => policy.revision < self.revision,
            None => self.document.is_some(),
        }
    }
}

impl Writes {
    /// Notes a write as the latest of all; how many were forgotten for it.
    fn note(&mut self, key: &Key, noted: Noted) -> u64 {
        self.last = self.last.max(noted.number);
        self.order.insert(noted.number, key.clone());
        if let Some(before) = self.by_key.insert(key.clone(), noted) {
            self.order.remove(&before.number);
        }
        let mut forgotten = 0;
        while self.order.len() > self.most {
            let Some((_, oldest)) = self.order.pop_first() else {
                break;
            };
            self.by_key.remove(&oldest);
            forgotten += 1;
        }
        forgotten
    }

    fn remove(&mut self, key: &Key, number: u64) {
        if self.by_key.get(key).is_some_and(|noted| noted.number == number) {
            self.by_key.remove(key);
            self.order.remove(&number);
        }
    }
}

impl Ledger {
    /// A ledger that is gone with the process.
    pub fn in_memory(evictions: IntCounter) -> Self {
        Self::with(MOST_POLICIES, evictions)
    }

    fn with(most: usize, evictions: IntCounter) -> Self {
        Self {
            writes: Arc::new(Mutex::new(Writes {
                most,
                ..Writes::default()
            })),
            file: Arc::default(),
            evictions,
        }
    }

    /// Opens the ledger of a state directory. What of it cannot be used is said in a sentence; the rest is.
    pub fn open(state_dir: &Path, evictions: IntCounter) -> (Self, Option<String>) {
        Self::open_with(state_dir, MOST_POLICIES, evictions)
    }

    fn open_with(state_dir: &Path, most: usize, evictions: IntCounter) -> (Self, Option<String>) {
        let ledger = Self::with(most, evictions);
        let (file, records, refused) = LedgerFile::open(state_dir);
        for (record, document) in records {
            let noted = Noted {
                number: record.number,
                effect: record.etag,
                revision: record.revision,
                document,
            };
            let forgotten = ledger.writes().note(&(record.tenant_id, record.policy_id), noted);
            ledger.evictions.inc_by(forgotten);
        }
        *lock(&ledger.file) = Some(file);
        (ledger, refused)
    }

    fn writes(&self) -> MutexGuard<'_, Writes> {
        lock(&self.writes)
    }

    /// HEIR has acknowledged a write: it has this version now, or none. When this returns, a killed process has left word
    /// of it.
    pub(super) async fn note(&self, key: &Key, policy: Option<&Policy>, revision: Option<u64>) {
        let effect = policy.map(|policy| policy.document.etag().clone());
        let number = {
            let mut writes = self.writes();
            let number = writes.last + 1;
            let noted = Noted {
                number,
                effect: effect.clone(),
                revision,
                document: None,
            };
            let forgotten = writes.note(key, noted);
            self.evictions.inc_by(forgotten);
            number
        };
        let record = Record {
            number,
            tenant_id: key.0.clone(),
            policy_id: key.1.clone(),
            etag: effect,
            revision,
            bytes: 0,
        };
        // Without revisions no restore is ever noticed, so the document would never be asked for.
        let document = policy
            .filter(|_| revision.is_some())
            .map(|policy| policy.document.clone());
        let (file, writes, key) = (self.file.clone(), self.writes.clone(), key.clone());
        let append = move || {
            // Held until the place is noted, since a file that is rewritten has other places.
            let mut file = lock(&file);
            let Some(file) = file.as_mut() else { return };
            let place = file.append(record, document);
            if let Some(noted) = lock(&writes).by_key.get_mut(&key)
                && noted.number == number
            {
                noted.document = place;
            }
        };
        if let Err(error) = tokio::task::spawn_blocking(append).await {
            tracing::error!(%error, "The ledger of acknowledged writes failed.");
        }
    }

    /// Forgets a write that the operator is now told of, unless there has been another one since.
    pub(super) fn forget(&self, lost: &Lost) {
        self.writes().remove(&lost.key, lost.number);
    }

    /// The writes that were in force before a restore and are not after it. One that another writer had overwritten
    /// before is not among them, and is forgotten if it is from the part of the history that is gone.
    pub(super) fn lost(&self, before: &Snapshot, after: &Snapshot) -> Vec<Lost> {
        let mut writes = self.writes();
        let Writes { by_key, order, .. } = &mut *writes;
        let mut lost = Vec::new();
        by_key.retain(|key, noted| {
            if in_heir(after, key) == noted.effect {
                return true;
            }
            if noted.was_in_force(before, key) {
                lost.push(Lost {
                    key: key.clone(),
                    effect: noted.effect.clone(),
                    number: noted.number,
                    document: noted.document,
                });
                return true;
            }
            let is_gone = noted.revision > after.position().revision;
            if is_gone {
                order.remove(&noted.number);
            }
            !is_gone
        });
        lost.sort_unstable_by_key(|lost| lost.number);
        lost
    }

    /// The document that a lost write had stored, as the file has it.
    pub(super) async fn document(&self, lost: &Lost) -> Option<PolicyDocument> {
        let (place, etag) = (lost.document?, lost.effect.clone());
        let file = self.file.clone();
        let read = tokio::task::spawn_blocking(move || lock(&file).as_ref()?.read(place).ok());
        let bytes = read.await.ok()??;
        Some(PolicyDocument::trusted(bytes, etag))
    }

    /// Writes with revisions that a snapshot cannot have: they came after it.
    pub(super) fn beyond(&self, snapshot: &Snapshot) -> Vec<(Key, u64)> {
        let writes = self.writes();
        let beyond = writes.by_key.iter().filter_map(|(key, noted)| {
            let revision = noted.revision?;
            (Some(revision) > snapshot.position().revision).then(|| (key.clone(), revision))
        });
        beyond.collect()
    }

    /// A snapshot is on the disk: documents that it has need not be kept here as well, and writes that it shows to be
    /// overwritten not at all. Rewrites the file if most of it is not needed any more.
    pub fn compact(&self, saved: &Snapshot) {
        let mut file = lock(&self.file);
        let Some(file) = file.as_mut() else { return };
        let records: Vec<Located> = {
            let mut writes = self.writes();
            let Writes { by_key, order, .. } = &mut *writes;
            by_key.retain(|key, noted| {
                let is_reached = noted.revision.is_some() && noted.revision <= saved.position().revision;
                if !is_reached {
                    return true;
                }
                if in_heir(saved, key) == noted.effect {
                    noted.document = None;
                    return true;
                }
                // A version that is older than the write has not overwritten it: HEIR was restored, and whether the write
                // was lost has still to be looked for, however far HEIR's revisions have come again.
                let has_newer = saved
                    .heir(key.0.as_str(), key.1.as_str())
                    .is_some_and(|policy| policy.revision > noted.revision);
                if has_newer {
                    order.remove(&noted.number);
                }
                !has_newer
            });
            if !file.is_worth_rewriting(by_key.len()) {
                drop(writes);
                file.sync();
                return;
            }
            let ordered = order.values().filter_map(|key| Some((key, by_key.get(key)?)));
            ordered
                .map(|(key, noted)| (record(key, noted), noted.document))
                .collect()
        };
        match file.rewrite(records) {
            Ok(places) => {
                let mut writes = self.writes();
                for (key, number, place) in places {
                    if let Some(noted) = writes.by_key.get_mut(&key)
                        && noted.number == number
                    {
                        noted.document = place;
                    }
                }
            }
            Err(error) => log_failure(&error),
        }
    }
}

fn log_failure(error: &io::Error) {
    tracing::warn!(%error, "The ledger of acknowledged writes cannot be written; memory has them.");
}

fn record(key: &Key, noted: &Noted) -> Record {
    Record {
        number: noted.number,
        tenant_id: key.0.clone(),
        policy_id: key.1.clone(),
        etag: noted.effect.clone(),
        revision: noted.revision,
        bytes: 0,
    }
}

fn in_heir(snapshot: &Snapshot, key: &Key) -> Option<ETag> {
    snapshot
        .heir(key.0.as_str(), key.1.as_str())
        .map(|policy| policy.document.etag().clone())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[path = "ledger_tests.rs"]
mod tests;
