//! The checks that the policies of a snapshot define.

use std::collections::BTreeMap;

use hashbrown::{HashMap, hash_map::Entry};
use http::Uri;

use super::address::{self, Allowed};
use crate::{
    policy::{HealthCheck, ProviderId, RoutingPolicy, TenantId},
    snapshot::{Policy, Snapshot},
};

/// The most addresses that are checked, whatever tenants write.
pub(super) const MOST_ADDRESSES: usize = 10_000;

/// A provider of a tenant.
pub(super) type ProviderKey = (TenantId, ProviderId);

/// The address at which each provider is checked. An address that many tenants name is one.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    pub(super) addresses: BTreeMap<String, (Uri, Vec<(ProviderKey, HealthCheck)>)>,
    /// Checks that name an address on a host that is not listed, or no address.
    pub(super) refused: usize,
    /// Checks beyond the limit.
    pub(super) left_out: usize,
}

/// The addresses that the operator allows.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) endpoints: HashMap<String, Uri>,
    pub(super) allowed: Allowed,
}

impl Rules {
    /// The address of a check: the policy's where it may name one, else the operator's. `Err`: it may not.
    fn address(&self, provider: &ProviderId, check: &HealthCheck) -> Result<Option<Uri>, ()> {
        match &check.url {
            None => Ok(self.endpoints.get(provider.as_str()).cloned()),
            Some(url) => match address::parse(url) {
                Ok(uri) if self.allowed.permits(&uri) => Ok(Some(uri)),
                _ => Err(()),
            },
        }
    }

    /// What a snapshot asks for. Health is a provider's of a tenant, whichever policies name it: where several have
    /// a check for it, a provider's own setting goes before a policy's, and then the policy that sorts first.
    pub(super) fn wanted<R>(&self, snapshot: &Snapshot, routing: R) -> Wanted
    where
        R: for<'a> Fn(&'a Policy) -> Option<&'a RoutingPolicy>,
    {
        let mut wanted = Wanted::default();
        for (tenant, t) in snapshot.tenants() {
            let mut chosen: HashMap<ProviderId, (bool, HealthCheck, Uri)> = HashMap::new();
            for (_, found) in t.sorted() {
                let Some(policy) = routing(found.policy) else {
                    continue;
                };
                self.choose(policy, &mut chosen, &mut wanted.refused);
            }
            for (provider, (_, check, uri)) in chosen {
                let full = wanted.addresses.len() >= MOST_ADDRESSES;
                let name = uri.to_string();
                if full && !wanted.addresses.contains_key(&name) {
                    wanted.left_out += 1;
                    continue;
                }
                let (_, askers) = wanted.addresses.entry(name).or_insert((uri, Vec::new()));
                askers.push(((tenant.clone(), provider), check));
            }
        }
        wanted
    }

    fn choose(
        &self,
        policy: &RoutingPolicy,
        chosen: &mut HashMap<ProviderId, (bool, HealthCheck, Uri)>,
        refused: &mut usize,
    ) {
        for provider in &policy.providers {
            let own = provider.health_check.is_some();
            let check = provider
                .health_check
                .as_deref()
                .or(policy.health_check.as_deref());
            let Some(check) = check.filter(|check| check.enabled) else {
                continue;
            };
            let uri = match self.address(&provider.id, check) {
                Ok(Some(uri)) => uri,
                Ok(None) => continue,
                Err(()) => {
                    *refused += 1;
                    continue;
                }
            };
            match chosen.entry(provider.id.clone()) {
                Entry::Occupied(mut known) if own && !known.get().0 => {
                    known.insert((own, check.clone(), uri));
                }
                Entry::Occupied(_) => {}
                Entry::Vacant(entry) => {
                    entry.insert((own, check.clone(), uri));
                }
            }
        }
    }
}
