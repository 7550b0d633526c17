//! Writes that HEIR has acknowledged to this process, so that those it loses again are noticed.
//!
//! A HEIR that is restored from a backup has forgotten what it acknowledged after the backup was made. Memory has
//! not: the ledger says which versions were written through here, the snapshot from before the restore has their
//! bytes.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use crate::{
    policy::ETag,
    snapshot::{Key, Snapshot},
};

/// Most policies whose last write is remembered.
const MOST: usize = 100_000;

/// The last acknowledged write of each policy; `None`: it was deleted.
#[derive(Debug, Default)]
pub struct Ledger(Mutex<HashMap<Key, Option<ETag>>>);

/// A write that HEIR has forgotten.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) key: Key,
    /// What it had left; `None`: it had deleted the policy, which was restored with the rest.
    pub(super) effect: Option<ETag>,
}

impl Ledger {
    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Option<ETag>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn stored(&self, key: &Key, etag: &ETag) {
        self.note(key, Some(etag.clone()));
    }

    pub(super) fn deleted(&self, key: &Key) {
        self.note(key, None);
    }

    fn note(&self, key: &Key, effect: Option<ETag>) {
        let mut writes = self.lock();
        if writes.len() < MOST || writes.contains_key(key) {
            writes.insert(key.clone(), effect);
        }
    }

    /// Forgets a write that an operator now has before them, unless there has been another one since.
    pub(super) fn forget(&self, lost: &Lost) {
        let mut writes = self.lock();
        if writes.get(&lost.key) == Some(&lost.effect) {
            writes.remove(&lost.key);
        }
    }

    /// The writes that were in force before a restore and are not after it. One that somebody else had overwritten
    /// before was not ours to lose.
    pub(super) fn lost(&self, before: &Snapshot, after: &Snapshot) -> Vec<Lost> {
        let heir = |snapshot: &Snapshot, key: &Key| {
            snapshot
                .heir(key.0.as_str(), key.1.as_str())
                .map(|policy| policy.document.etag().clone())
        };
        let writes = self.lock();
        let lost = writes
            .iter()
            .filter(|(key, effect)| heir(before, key) == **effect && heir(after, key) != **effect);
        lost.map(|(key, effect)| Lost {
            key: key.clone(),
            effect: effect.clone(),
        })
        .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyId, TenantId};

    #[test]
    fn a_write_made_since_is_not_forgotten_with_the_lost_one() {
        let ledger = Ledger::default();
        let key = (TenantId::parse("acme").unwrap(), PolicyId::parse("chat").unwrap());
        let lost = Lost {
            key: key.clone(),
            effect: Some(ETag::of_bytes(b"1")),
        };
        ledger.stored(&key, &ETag::of_bytes(b"1"));
        ledger.stored(&key, &ETag::of_bytes(b"2"));
        ledger.forget(&lost);
        assert_eq!(ledger.lock().get(&key), Some(&Some(ETag::of_bytes(b"2"))));
        ledger.stored(&key, &ETag::of_bytes(b"1"));
        ledger.forget(&lost);
        assert_eq!(ledger.lock().get(&key), None);
    }
}
