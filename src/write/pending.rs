//! The journal's writes in memory, in their order and by policy.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    time::Instant,
};

use super::entry::{Base, Entry, EntryId, Left, State};
use crate::snapshot::Key;

/// How much is in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Amounts {
    /// Writes that wait for HEIR.
    pub queued: usize,
    /// Writes that wait for an operator.
    pub conflicts: usize,
    /// Bytes of all files.
    pub bytes: u64,
}

/// All writes that are not done.
#[derive(Debug, Default)]
pub(super) struct Pending {
    entries: BTreeMap<EntryId, Entry>,
    /// Those that wait for HEIR, of each policy that has any.
    queued: HashMap<Key, BTreeSet<EntryId>>,
    /// Bytes of their files.
    bytes: u64,
}

impl Pending {
    pub(super) fn insert(&mut self, entry: Entry) {
        self.bytes += entry.file_bytes;
        if entry.state == State::Queued {
            self.queued.entry(entry.key.clone()).or_default().insert(entry.id);
        }
        self.entries.insert(entry.id, entry);
    }

    pub(super) fn take(&mut self, id: EntryId) -> Option<Entry> {
        let entry = self.entries.remove(&id)?;
        self.bytes -= entry.file_bytes;
        if let Some(ids) = self.queued.get_mut(&entry.key) {
            ids.remove(&id);
            if ids.is_empty() {
                self.queued.remove(&entry.key);
            }
        }
        Some(entry)
    }

    /// Changes a write; what it is then.
    pub(super) fn change(&mut self, id: EntryId, change: impl FnOnce(&mut Entry)) -> Option<Entry> {
        let mut entry = self.take(id)?;
        change(&mut entry);
        self.insert(entry.clone());
        Some(entry)
    }

    pub(super) fn get(&self, id: EntryId) -> Option<&Entry> {
        self.entries.get(&id)
    }

    /// All of them, oldest first.
    pub(super) fn all(&self) -> impl Iterator<Item = &Entry> {
        self.entries.values()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn amounts(&self) -> Amounts {
        let queued = self.queued.values().map(BTreeSet::len).sum();
        Amounts {
            queued,
            conflicts: self.entries.len() - queued,
            bytes: self.bytes,
        }
    }

    /// The newest write that waits for this policy.
    pub(super) fn newest(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(self.queued.get(key)?.last()?)
    }

    /// The newest waiting write of each policy.
    pub(super) fn newest_of_each(&self) -> impl Iterator<Item = &Entry> {
        self.queued.keys().filter_map(|key| self.newest(key))
    }

    /// The write to try now, or else when the first rest ends; see [`Journal`](super::Journal).
    pub(super) fn next(&self, now: Instant) -> (Option<&Entry>, Option<Instant>) {
        let (mut behind, mut best, mut first_end) = (HashSet::new(), None::<&Entry>, None);
        for entry in self.all().filter(|entry| entry.state == State::Queued) {
            if !behind.is_empty() && behind.contains(&entry.key) {
                continue;
            }
            if entry.attempts() == 0 && !entry.rests(now) {
                return (Some(entry), None);
            }
            behind.insert(&entry.key);
            if entry.rests(now) {
                first_end = first_end.into_iter().chain(entry.rests_until()).min();
            } else if best.is_none_or(|best| entry.attempts() < best.attempts()) {
                best = Some(entry);
            }
        }
        (best, first_end)
    }

    /// None rests any longer.
    pub(super) fn end_rests(&mut self) {
        for entry in self.entries.values_mut() {
            if let Some(trouble) = &mut entry.trouble {
                trouble.rests_until = None;
            }
        }
    }

    /// Gives the waiting writes that stood on one that was taken out another base; which those are.
    pub(super) fn stand_on(&mut self, taken: &Entry, base: &Base, on_top_of: Option<&Left>) -> Vec<EntryId> {
        let later = self.queued.get(&taken.key).cloned().unwrap_or_default();
        let mut dependents = Vec::new();
        for id in later {
            if let Some(entry) = self.entries.get_mut(&id)
                && entry.base == Base::Entry(taken.id)
            {
                entry.base = base.clone();
                entry.on_top_of = on_top_of.cloned();
                dependents.push(id);
            }
        }
        dependents
    }
}
