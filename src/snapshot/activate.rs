//! Taking what HEIR has into memory: everything, one tenant's list, or the changes since the last time.

use std::sync::Arc;

use super::{
    draft::Draft,
    gone::Gone,
    guard::Guarded,
    incoming::{ChangeSet, Incoming, Operation, Scope},
    key::Key,
    outcome::{Activation, Withheld},
    pins::{FetchStart, reaches},
    policy::Policy,
    provenance::Origin,
    state::Snapshot,
    store::SnapshotStore,
};
use crate::policy::{PolicyId, TenantId};

impl SnapshotStore {
    /// Activates what HEIR has, whole, or withholds it.
    ///
    /// # Errors
    /// When the shrink guard waits for a confirmation; nothing was changed.
    pub fn activate(
        &self,
        start: FetchStart,
        mut incoming: Incoming,
        guarded: Guarded,
    ) -> Result<Activation, Withheld> {
        let mut state = self.writer_state();
        let current = self.current.load_full();
        keep_last_good(&current, &mut incoming);
        keep_unlisted(&current, &mut incoming);
        let gone = removed_by(&current, &incoming);
        let (removed, fingerprint) = (gone.len(), fingerprint(gone));
        let scope = match &incoming.scope {
            Scope::Everything => None,
            Scope::Tenant(tenant) => Some(tenant),
        };
        state
            .guard
            .allow(scope, removed, current.heir_count(), guarded, || {
                Some(fingerprint)
            })?;
        let lost = state.pins.misses_writes(start, &incoming);
        if incoming.scope == Scope::Everything {
            state.pins.verify(start);
        }
        state.pins.keep_later_writes(start, &current, &mut incoming);

        let went_back = lost
            || match (current.position.revision, incoming.position.revision) {
                (Some(ours), Some(theirs)) => theirs < ours,
                _ => false,
            };
        let mut loaded = 0;
        for (tenant, policies) in &incoming.policies {
            let new = policies
                .iter()
                .filter(|(id, policy)| {
                    !current
                        .heir(tenant.as_str(), id.as_str())
                        .is_some_and(|old| Arc::ptr_eq(old, policy))
                })
                .count();
            loaded += new;
            if new > 0 {
                // Gives the tenant its label before it is counted under it.
                self.metrics.tenant(tenant);
                self.metrics.policies_loaded(tenant, "heir", new as u64);
            }
        }
        let mut draft = Draft::of(&current, &self.metrics);
        match incoming.scope.clone() {
            Scope::Everything => {
                for tenant in current
                    .tenants
                    .keys()
                    .filter(|tenant| !incoming.policies.contains_key(*tenant))
                {
                    draft.set_heir_tenant(tenant, hashbrown::HashMap::new());
                }
                for (tenant, policies) in std::mem::take(&mut incoming.policies) {
                    draft.set_heir_tenant(&tenant, policies);
                }
                draft.set_extensions(std::mem::take(&mut incoming.extensions));
                draft.set_position(incoming.position);
                draft.edit_problems(|problems| *problems = incoming.problems);
            }
            Scope::Tenant(tenant) => {
                let policies = incoming.policies.remove(&tenant).unwrap_or_default();
                draft.set_heir_tenant(&tenant, policies);
                draft.set_listed(&tenant);
                draft.edit_problems(|problems| {
                    problems.retain(|key, _| key.0 != tenant);
                    problems.extend(incoming.problems);
                });
            }
        }
        draft.set_coverage(incoming.coverage);
        draft.set_origin(Origin::Heir);
        self.publish(draft);
        Ok(Activation {
            loaded,
            removed,
            went_back,
        })
    }

    /// Removes policies that HEIR was asked for one by one, or by lists, and does not have any more. One that has
    /// another version than when HEIR was asked stays, and so does one that was written since. How many were removed.
    ///
    /// # Errors
    /// When the shrink guard waits for a confirmation; nothing was changed.
    pub fn remove(
        &self,
        scope: Option<&TenantId>,
        gone: &[Gone],
        guarded: Guarded,
    ) -> Result<usize, Withheld> {
        let mut state = self.writer_state();
        let current = self.current.load_full();
        let is_still = |gone: &&Gone| {
            let known = current.heir(gone.key.0.as_str(), gone.key.1.as_str());
            known.is_some_and(|known| Arc::ptr_eq(known, &gone.policy))
        };
        let gone: Vec<&Gone> = gone
            .iter()
            .filter(is_still)
            .filter(|gone| state.pins.release(&gone.key, gone.start))
            .collect();
        let keys = gone.iter().map(|gone| (&gone.key.0, &gone.key.1));
        let known = current.heir_count();
        state
            .guard
            .allow(scope, gone.len(), known, guarded, || Some(fingerprint(keys)))?;
        if gone.is_empty() {
            return Ok(0);
        }
        let mut draft = Draft::of(&current, &self.metrics);
        for Gone { key, .. } in &gone {
            draft.set_heir(key, None);
        }
        draft.edit_problems(|problems| {
            for Gone { key, .. } in &gone {
                problems.remove(key);
            }
        });
        self.publish(draft);
        Ok(gone.len())
    }

    /// Applies what happened in HEIR since the position of the snapshot.
    ///
    /// # Errors
    /// When the changes do not follow on from the snapshot, or remove too much; nothing was changed.
    pub fn apply_changes(&self, changes: ChangeSet, guarded: Guarded) -> Result<Activation, Withheld> {
        let mut state = self.writer_state();
        let current = self.current.load_full();
        if current.position.revision != changes.from.revision {
            return Err(Withheld::Outdated);
        }
        if let (Some(ours), Some(theirs)) = (&current.position.chain, &changes.from.chain)
            && ours != theirs
        {
            return Err(Withheld::OtherHistory);
        }
        if state.pins.has_unverified() || state.pins.contradict(&changes) {
            return Err(Withheld::OtherHistory);
        }
        let removed = changes
            .operations
            .iter()
            .filter(|operation| match operation {
                Operation::Delete { key, .. } => current.heir(key.0.as_str(), key.1.as_str()).is_some(),
                _ => false,
            })
            .count();
        if removed > 0 {
            // Not confirmed by repetition: what is left after so many removals is looked at whole.
            state
                .guard
                .allow(None, removed, current.heir_count(), guarded, || None)?;
        }
        let mut loaded = 0;
        let mut draft = Draft::of(&current, &self.metrics);
        for operation in changes.operations {
            match operation {
                Operation::Put { key, policy } => {
                    let known = draft.snapshot().heir(key.0.as_str(), key.1.as_str());
                    let is_known = match known {
                        // What HEIR says of a revision replaces what a write was believed to have made of it.
                        Some(known) if known.revision == policy.revision => known.document == policy.document,
                        Some(known) => reaches(known.revision, policy.revision),
                        None => state.pins.covers(&key, policy.revision),
                    };
                    if is_known || state.pins.is_beyond(&key, policy.revision) {
                        continue;
                    }
                    loaded += 1;
                    self.metrics.tenant(&key.0);
                    self.metrics.policies_loaded(&key.0, "heir", 1);
                    draft.edit_problems(|problems| {
                        problems.remove(&key);
                    });
                    draft.set_heir(&key, Some(policy));
                }
                Operation::Delete { key, revision } => {
                    let known = draft.snapshot().heir(key.0.as_str(), key.1.as_str());
                    let older = known.is_some_and(|known| reaches(known.revision, revision));
                    if older || state.pins.covers(&key, revision) {
                        continue;
                    }
                    draft.edit_problems(|problems| {
                        problems.remove(&key);
                    });
                    draft.set_heir(&key, None);
                }
                Operation::PutExtension { id, record } => draft.edit_extensions(|extensions| {
                    extensions.insert(id, record);
                }),
                Operation::DeleteExtension { id } => draft.edit_extensions(|extensions| {
                    extensions.remove(&id);
                }),
            }
        }
        if !changes.problems.is_empty() {
            draft.edit_problems(|problems| problems.extend(changes.problems));
        }
        state.pins.keep_beyond(changes.to.revision);
        draft.set_position(changes.to);
        draft.set_origin(Origin::Heir);
        self.publish(draft);
        Ok(Activation {
            loaded,
            removed,
            went_back: false,
        })
    }
}

/// A policy whose new version is no document keeps the one before.
fn keep_last_good(current: &Snapshot, incoming: &mut Incoming) {
    let kept: Vec<(Key, Arc<Policy>)> = incoming
        .problems
        .keys()
        .filter_map(|key| Some((key.clone(), current.heir(key.0.as_str(), key.1.as_str())?.clone())))
        .collect();
    for (key, policy) in kept {
        incoming.put(key, policy);
    }
}

/// A list takes nothing away by itself: what it does not have may have been fetched since it was asked for. What is
/// really gone is removed by its name.
fn keep_unlisted(current: &Snapshot, incoming: &mut Incoming) {
    let Scope::Tenant(tenant) = incoming.scope.clone() else {
        return;
    };
    let known = current.tenants.get(&tenant).into_iter();
    for (id, entry) in known.flat_map(|tenant| &tenant.policies) {
        if let Some(policy) = entry.heir.as_ref().filter(|_| !incoming.mentions(&tenant, id)) {
            incoming.put((tenant.clone(), id.clone()), policy.clone());
        }
    }
}

/// The policies that memory has of HEIR and that an answer does not have any more.
fn removed_by<'a>(
    current: &'a Snapshot,
    incoming: &'a Incoming,
) -> impl ExactSizeIterator<Item = (&'a TenantId, &'a PolicyId)> {
    let speaks_for = |tenant: &_| match &incoming.scope {
        Scope::Everything => true,
        Scope::Tenant(only) => tenant == only,
    };
    let gone: Vec<_> = current
        .tenants
        .iter()
        .filter(|(tenant, _)| speaks_for(*tenant))
        .flat_map(|(tenant, t)| t.policies.iter().map(move |(id, entry)| (tenant, id, entry)))
        .filter(|(tenant, id, entry)| entry.heir.is_some() && !incoming.mentions(tenant, id))
        .map(|(tenant, id, _)| (tenant, id))
        .collect();
    gone.into_iter()
}

/// Names a set of policies, in whatever order they come.
fn fingerprint<'a>(keys: impl IntoIterator<Item = (&'a TenantId, &'a PolicyId)>) -> u64 {
    use std::hash::BuildHasher;
    let hasher = &std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default();
    let hashes = keys.into_iter().map(|key| hasher.hash_one(key));
    hashes.fold(0, u64::wrapping_add)
}
