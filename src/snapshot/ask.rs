//! Has extensions asked about the configurations of policies that are published already: a snapshot is made without waiting for
//! them, and judged again once they have answered.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use super::{draft::ask_extensions, policy::Policy, state::Snapshot, store::SnapshotStore};
use crate::policy::TenantId;

/// For how long the extensions of one policy are asked before those of another tenant's.
const TURN: Duration = Duration::from_millis(100);

/// What came of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Asked {
    /// There is nothing that an extension was not asked about.
    All,
    /// There was no time for all.
    Some,
}

impl SnapshotStore {
    /// Asks extensions about the policies that they were not asked about yet, one of each tenant after the other, for about so
    /// long, each answer being waited for so long, and publishes what they say.
    pub fn ask_extensions(&self, within: Duration, patience: Duration) -> Asked {
        let Some(host) = self.extensions() else {
            return Asked::All;
        };
        let (began, snapshot) = (Instant::now(), self.load_full());
        let mut waiting = unasked(&snapshot);
        if waiting.is_empty() {
            return Asked::All;
        }
        let mut asked = BTreeSet::new();
        while began.elapsed() < within && !waiting.is_empty() {
            waiting.retain_mut(|(tenant, policies)| {
                let Some(policy) = policies.pop() else {
                    return false;
                };
                if began.elapsed() < within {
                    ask_extensions(tenant, &policy, snapshot.registry(), host, (TURN, patience));
                    asked.insert(tenant.clone());
                }
                true
            });
        }
        self.edit(|draft| asked.iter().for_each(|tenant| draft.judge_again(tenant)));
        if unasked(&self.load()).is_empty() {
            Asked::All
        } else {
            Asked::Some
        }
    }
}

/// The policies that extensions were not asked about, by tenant.
fn unasked(snapshot: &Snapshot) -> Vec<(TenantId, Vec<Arc<Policy>>)> {
    let tenants = snapshot.tenants.iter().map(|(id, tenant)| {
        let unasked = tenant.broken.iter().filter(|(_, known)| known.is_unasked);
        let policies = unasked.filter_map(|(id, _)| Some(tenant.policies.get(id)?.found()?.policy.clone()));
        (id.clone(), policies.collect::<Vec<_>>())
    });
    tenants.filter(|(_, policies)| !policies.is_empty()).collect()
}
