//! Which providers failed their active checks.

use super::{
    provider_key::{ProviderKey, ProviderName},
    table::Table,
};
use crate::{
    clock::Timestamp,
    policy::{ProviderId, TenantId},
};

/// Health of providers, as checks found it. A provider that was never checked is not unhealthy. How many failures make
/// one unhealthy is counted by the checker.
#[derive(Debug)]
pub struct Health {
    unhealthy: Table<ProviderKey, ()>,
}

impl Health {
    /// At most this many unhealthy providers are known; beyond that one is forgotten.
    pub fn new(providers: usize) -> Self {
        Self {
            unhealthy: Table::of_tenants(providers, |key| Some(&key.0), |()| false),
        }
    }

    /// Costs nothing while no provider is unhealthy.
    pub fn is_unhealthy(&self, tenant: &TenantId, provider: &str) -> bool {
        self.unhealthy.len() > 0
            && self
                .unhealthy
                .read(&ProviderName::new(tenant, provider), |()| ())
                .is_some()
    }

    /// Notes what a provider's checks have found.
    pub fn set(&self, tenant: &TenantId, provider: &ProviderId, healthy: bool) {
        let name = ProviderName::new(tenant, provider.as_str());
        if healthy {
            self.unhealthy.remove(&name);
        } else {
            // All were found out at one time, as far as a full table minds.
            let always = Timestamp::from_unix_ms(0);
            let make = || ((tenant.clone(), provider.clone()), ());
            self.unhealthy.change_or_make(&name, always, make, |()| ());
        }
    }

    /// Number of unhealthy providers.
    pub fn len(&self) -> usize {
        self.unhealthy.len()
    }

    /// Whether no provider is unhealthy.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tenant's unhealthy providers, sorted.
    pub fn list(&self, tenant: &TenantId) -> Vec<ProviderId> {
        let mut found = Vec::new();
        self.unhealthy.each(|key, ()| {
            if key.0 == *tenant {
                found.push(key.1.clone());
            }
        });
        found.sort_unstable();
        found
    }

    pub(super) fn prune(&self, keep: &mut impl FnMut(&TenantId) -> bool) -> usize {
        self.unhealthy.retain(|key, ()| keep(&key.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_failed_check_makes_a_provider_unhealthy_and_for_its_tenant_alone() {
        let health = Health::new(10);
        let (a, b) = (TenantId::parse("a").unwrap(), TenantId::parse("b").unwrap());
        let openai = ProviderId::new("openai");
        assert!(!health.is_unhealthy(&a, "openai"));
        health.set(&a, &openai, false);
        health.set(&a, &openai, false);
        assert!(health.is_unhealthy(&a, "openai"));
        assert!(!health.is_unhealthy(&b, "openai"));
        assert!(!health.is_unhealthy(&a, "azure"));
        assert_eq!(health.list(&a), [ProviderId::new("openai")]);
        health.set(&a, &openai, true);
        health.set(&a, &openai, true);
        assert!(!health.is_unhealthy(&a, "openai") && health.is_empty());
        for index in 0..50 {
            health.set(&a, &ProviderId::new(&format!("p{index}")), false);
        }
        assert_eq!(health.len(), 10);
        health.prune(&mut |tenant| *tenant == b);
        assert!(health.is_empty());
    }
}
