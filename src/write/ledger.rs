//! Writes that HEIR has acknowledged to this process, to find those that it loses again.
//!
//! A HEIR that is restored from a backup has forgotten what it acknowledged after the backup was made. Memory has
//! not: the ledger says which versions were written through here, the snapshot from before the restore has their
//! bytes.

use crate::{
    clock::now,
    decide::memory::table::Table,
    policy::ETag,
    snapshot::{Key, Snapshot},
};

/// Most policies whose last write is remembered; beyond them the oldest write is forgotten.
const MAX_POLICIES: usize = 100_000;

/// The last acknowledged write of each policy; `None`: it was deleted.
#[derive(Debug)]
pub struct Ledger(Table<Key, Option<ETag>>);

impl Default for Ledger {
    fn default() -> Self {
        Self(Table::new(MAX_POLICIES))
    }
}

/// A write that HEIR has forgotten.
#[derive(Debug)]
pub(super) struct Lost {
    pub(super) key: Key,
    /// What it had left; `None`: it had deleted the policy, which was restored with the rest.
    pub(super) effect: Option<ETag>,
}

impl Ledger {
    pub(super) fn stored(&self, key: &Key, etag: &ETag) {
        self.note(key, Some(etag.clone()));
    }

    pub(super) fn deleted(&self, key: &Key) {
        self.note(key, None);
    }

    fn note(&self, key: &Key, effect: Option<ETag>) {
        self.0
            .change_or_make(key, now(), || (key.clone(), None), |kept| *kept = effect);
    }

    /// Forgets a write that the operator is now told of, unless there has been another one since.
    pub(super) fn forget(&self, lost: &Lost) {
        self.0.remove_if(&lost.key, |effect| *effect == lost.effect);
    }

    /// The writes that were in force before a restore and are not after it. One that another writer had overwritten
    /// before is not among them.
    pub(super) fn lost(&self, before: &Snapshot, after: &Snapshot) -> Vec<Lost> {
        let heir = |snapshot: &Snapshot, key: &Key| {
            snapshot
                .heir(key.0.as_str(), key.1.as_str())
                .map(|policy| policy.document.etag().clone())
        };
        let mut lost = Vec::new();
        self.0.each(|key, effect| {
            if heir(before, key) == *effect && heir(after, key) != *effect {
                lost.push(Lost {
                    key: key.clone(),
                    effect: effect.clone(),
                });
            }
        });
        lost
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyId, TenantId};

    impl Ledger {
        fn effect(&self, key: &Key) -> Option<Option<ETag>> {
            self.0.read(key, Clone::clone)
        }
    }

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
        assert_eq!(ledger.effect(&key), Some(Some(ETag::of_bytes(b"2"))));
        ledger.stored(&key, &ETag::of_bytes(b"1"));
        ledger.forget(&lost);
        assert_eq!(ledger.effect(&key), None);
    }
}
