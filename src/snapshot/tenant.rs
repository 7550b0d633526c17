//! One tenant of a snapshot.

use std::{collections::BTreeMap, sync::Arc};

use hashbrown::HashMap;

use super::{
    broken::{Broken, BrokenPolicy},
    metrics::TenantMetrics,
    policy::{Entry, Found, Policy},
};
use crate::policy::{PolicyId, Problem, errors};

/// One tenant's policies.
#[derive(Debug, Clone)]
pub struct Tenant {
    pub(crate) policies: HashMap<PolicyId, Entry>,
    /// Absence of a policy is known, because HEIR listed the whole tenant.
    pub(crate) listed: bool,
    /// Policies that a lookup finds, and the bytes of their documents.
    pub(crate) size: usize,
    pub(crate) bytes: usize,
    /// Policies among them that were taken with notes.
    pub(crate) noted: usize,
    /// What is known of policies that are broken.
    pub(crate) broken: BTreeMap<PolicyId, Broken>,
    /// How many policies are broken.
    pub(crate) broken_count: usize,
    pub(crate) metrics: Arc<TenantMetrics>,
}

impl Tenant {
    /// The policies that a lookup finds, in no order.
    pub fn found(&self) -> impl Iterator<Item = (&PolicyId, Found<'_>)> {
        self.policies
            .iter()
            .filter_map(|(id, entry)| Some((id, entry.found()?)))
    }

    /// For how many mistakes a write of this policy, which was found here, would be refused.
    pub fn errors_of(&self, id: &str, policy: &Policy) -> usize {
        if self.broken_count == 0 {
            return 0;
        }
        let of_extensions = self
            .broken
            .get(id)
            .map_or(0, |broken| errors(&broken.of_extensions).count());
        policy.errors() + of_extensions
    }

    /// This policy, which was found here, if it is broken.
    pub fn broken(&self, id: &str, policy: &Arc<Policy>) -> Option<BrokenPolicy> {
        (self.errors_of(id, policy) > 0).then(|| {
            let known = self.broken.get(id).cloned().unwrap_or_default();
            BrokenPolicy::new(policy.clone(), known)
        })
    }

    /// What a write of a policy would be warned for, and what the extensions that it names have to remark. Nothing where it is
    /// broken.
    pub fn notes_of(&self, id: &str, policy: &Policy) -> Vec<Problem> {
        if self.errors_of(id, policy) > 0 {
            return Vec::new();
        }
        let mut notes = policy.notes();
        if let Some(known) = self.broken.get(id) {
            notes.extend(known.of_extensions.iter().cloned());
        }
        notes
    }

    /// Whether there is such a thing.
    pub(super) fn is_noted(&self, id: &str, policy: &Policy) -> bool {
        let has_notes = policy.is_noted()
            || self
                .broken
                .get(id)
                .is_some_and(|known| !known.of_extensions.is_empty());
        has_notes && self.errors_of(id, policy) == 0
    }

    /// All policies that are broken, by the bytes of their ids.
    pub fn all_broken(&self) -> Vec<(&PolicyId, BrokenPolicy)> {
        if self.broken_count == 0 {
            return Vec::new();
        }
        let policies = self.sorted().into_iter();
        let broken = policies.filter_map(|(id, found)| Some((id, self.broken(id.as_str(), found.policy)?)));
        broken.collect()
    }

    /// The policies that a lookup finds, by the bytes of their ids.
    pub fn sorted(&self) -> Vec<(&PolicyId, Found<'_>)> {
        let mut found: Vec<_> = self.found().collect();
        found.sort_unstable_by_key(|(id, _)| *id);
        found
    }

    /// The counters that a lookup for this tenant touches.
    pub fn metrics(&self) -> &TenantMetrics {
        &self.metrics
    }
}
