//! One tenant of a snapshot.

use std::sync::Arc;

use hashbrown::HashMap;

use super::{
    metrics::TenantMetrics,
    policy::{Entry, Found},
};
use crate::policy::PolicyId;

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
    pub(crate) metrics: Arc<TenantMetrics>,
}

impl Tenant {
    /// The policies that a lookup finds, in no order.
    pub fn found(&self) -> impl Iterator<Item = (&PolicyId, Found<'_>)> {
        self.policies
            .iter()
            .filter_map(|(id, entry)| Some((id, entry.found()?)))
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
