//! The name of a provider of a tenant, as a key of the tables here: owned, and borrowed for looking it up.

use hashbrown::Equivalent;

use crate::policy::{ProviderId, TenantId};

/// A provider of a tenant.
pub(super) type ProviderKey = (TenantId, ProviderId);

/// The same, borrowed.
#[derive(Debug, Clone, Copy, Hash)]
pub(super) struct ProviderName<'a> {
    pub(super) tenant: &'a str,
    pub(super) provider: &'a str,
}

impl<'a> ProviderName<'a> {
    pub(super) fn new(tenant: &'a TenantId, provider: &'a str) -> Self {
        Self {
            tenant: tenant.as_str(),
            provider,
        }
    }
}

impl Equivalent<ProviderKey> for ProviderName<'_> {
    fn equivalent(&self, key: &ProviderKey) -> bool {
        self.tenant == key.0.as_str() && self.provider == key.1.as_str()
    }
}
