//! Read-your-writes: writes made through this sidecar that a refresh under way may not have seen.
//!
//! A write that HEIR has acknowledged pins its policy. What a fetch brings that began before the write is older than
//! the pin and does not replace it; what HEIR says about its history must agree with the pins, or HEIR was restored
//! from a backup.

use std::collections::HashMap;

use super::{
    incoming::{ChangeSet, Incoming, Operation, Scope},
    key::Key,
    provenance::Position,
    state::Snapshot,
};

/// When a fetch began, in terms of the writes made through this sidecar. What it brings is older than any write
/// that came after.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FetchStart(u64);

#[derive(Debug)]
struct Pin {
    /// Of the write, in the order of writes.
    number: u64,
    /// HEIR's revision that the write made, where HEIR has revisions.
    revision: Option<u64>,
    /// Memory has what it made. It does not of a write of an earlier run, which only a HEIR without it has to miss.
    is_in_memory: bool,
}

/// The writes that a refresh may not have seen.
#[derive(Debug, Default)]
pub(super) struct Pins {
    writes: u64,
    pins: HashMap<Key, Pin>,
    /// The number of the last write that was put over what memory seemed to know better.
    unverified: Option<u64>,
}

impl Pins {
    /// This moment, in terms of writes.
    pub(super) fn now(&self) -> FetchStart {
        FetchStart(self.writes)
    }

    /// Pins a policy for a write.
    pub(super) fn pin(&mut self, key: &Key, revision: Option<u64>) {
        self.writes += 1;
        let pin = Pin {
            number: self.writes,
            revision,
            is_in_memory: true,
        };
        self.pins.insert(key.clone(), pin);
    }

    /// Expects of HEIR's history a write that an earlier run made, and that memory does not have.
    pub(super) fn expect(&mut self, key: &Key, revision: u64) {
        self.writes += 1;
        let pin = Pin {
            number: self.writes,
            revision: Some(revision),
            is_in_memory: false,
        };
        self.pins.insert(key.clone(), pin);
    }

    /// The last write cannot be compared with what memory knows: only everything, taken anew, settles what is true.
    pub(super) fn mark_unverified(&mut self) {
        self.unverified = Some(self.writes);
    }

    /// Whether there is a write that only taking everything anew can settle.
    pub(super) fn has_unverified(&self) -> bool {
        self.unverified.is_some()
    }

    /// Everything was taken by a fetch that began then.
    pub(super) fn verify(&mut self, start: FetchStart) {
        if self.unverified.is_some_and(|number| number <= start.0) {
            self.unverified = None;
        }
    }

    /// Removes a policy's pin for what a fetch brought that began then. `false`: the pin is newer, and stays.
    pub(super) fn release(&mut self, key: &Key, start: FetchStart) -> bool {
        if self.pins.get(key).is_some_and(|pin| pin.number > start.0) {
            return false;
        }
        self.pins.remove(key);
        true
    }

    /// Whether a write made this revision of the policy, or a later one.
    pub(super) fn covers(&self, key: &Key, revision: Option<u64>) -> bool {
        self.pins
            .get(key)
            .is_some_and(|pin| pin.is_in_memory && reaches(pin.revision, revision))
    }

    /// Whether a write made a later revision of the policy.
    pub(super) fn is_beyond(&self, key: &Key, revision: Option<u64>) -> bool {
        self.pins.get(key).is_some_and(|pin| {
            pin.is_in_memory && pin.revision != revision && reaches(pin.revision, revision)
        })
    }

    /// The snapshot has come to this revision: only writes beyond it stay pinned.
    pub(super) fn keep_beyond(&mut self, reached: Option<u64>) {
        self.pins
            .retain(|_, pin| pin.revision.is_some() && pin.revision > reached);
    }

    /// Whether HEIR had acknowledged, before the fetch began, a write that comes after this position.
    pub(super) fn has_beyond(&self, start: FetchStart, position: &Position) -> bool {
        self.pins.values().any(|pin| {
            let beyond = |(write, ours)| write > ours;
            pin.number <= start.0 && pin.revision.zip(position.revision).is_some_and(beyond)
        })
    }

    /// Whether a write is missing that HEIR had acknowledged before the fetch of all this began.
    pub(super) fn misses_writes(&self, start: FetchStart, incoming: &Incoming) -> bool {
        self.pins
            .iter()
            .filter(|(_, pin)| pin.number <= start.0 && pin.revision.is_some())
            .any(|((tenant, policy), pin)| {
                let version = incoming
                    .policies
                    .get(tenant)
                    .and_then(|policies| policies.get(policy));
                // One that is not there may have been deleted since.
                let is_older = version.is_some_and(|version| version.revision < pin.revision);
                incoming.scope == Scope::Everything
                    && incoming.position.revision.is_some()
                    && (incoming.position.revision < pin.revision || is_older)
            })
    }

    /// Whether a write that HEIR acknowledged is not in its history where it said it was. Each revision is one
    /// change.
    pub(super) fn contradict(&self, changes: &ChangeSet) -> bool {
        // A HEIR that does not say which revision a change made leaves nothing to compare.
        let has_revision = |operation: &Operation| match operation {
            Operation::Put { policy, .. } => policy.revision.is_some(),
            Operation::Delete { revision, .. } => revision.is_some(),
            Operation::PutExtension { .. } | Operation::DeleteExtension { .. } => true,
        };
        if !changes.operations.iter().all(has_revision) {
            return false;
        }
        self.pins
            .iter()
            .filter(|(_, pin)| pin.revision > changes.from.revision && pin.revision <= changes.to.revision)
            .any(|(key, pin)| {
                let is_it = |operation: &Operation| match operation {
                    Operation::Put { key: put, policy } => put == key && policy.revision == pin.revision,
                    Operation::Delete {
                        key: deleted,
                        revision,
                    } => deleted == key && *revision == pin.revision,
                    Operation::PutExtension { .. } | Operation::DeleteExtension { .. } => false,
                };
                !changes.operations.iter().any(is_it) && !changes.problems.contains_key(key)
            })
    }

    /// Writes that HEIR acknowledged after the fetch began are newer than what it brought, and replace it there.
    pub(super) fn keep_later_writes(
        &mut self,
        start: FetchStart,
        current: &Snapshot,
        incoming: &mut Incoming,
    ) {
        let reached = incoming.position.revision;
        let scope = incoming.scope.clone();
        self.pins.retain(|key, pin| {
            if matches!(&scope, Scope::Tenant(tenant) if *tenant != key.0) {
                return true;
            }
            if pin.number <= start.0 || reaches(reached, pin.revision) {
                return false;
            }
            match current.heir(key.0.as_str(), key.1.as_str()) {
                Some(policy) => incoming.put(key.clone(), policy.clone()),
                None => {
                    if let Some(policies) = incoming.policies.get_mut(&key.0) {
                        policies.remove(&key.1);
                    }
                }
            }
            true
        });
    }
}

/// Whether a revision is at least another; where either is not known, nothing can be said.
pub(super) fn reaches(ours: Option<u64>, theirs: Option<u64>) -> bool {
    matches!((ours, theirs), (Some(ours), Some(theirs)) if ours >= theirs)
}
