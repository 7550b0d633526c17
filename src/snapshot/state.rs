//! The snapshot itself: one immutable state of everything that is known.

use std::sync::Arc;

use hashbrown::HashMap;
use http::HeaderValue;

use super::{
    key::Problems,
    policy::{Found, Policy, Queued},
    provenance::{Coverage, Origin, Position},
    tenant::Tenant,
};
use crate::{
    extensions::{ExtensionRecords, Registry},
    policy::{PolicyId, TenantId},
};

/// The outcome of looking for a policy.
#[derive(Debug)]
pub enum Lookup<'a> {
    /// It exists, in this version.
    Found(Found<'a>),
    /// It does not exist.
    Absent,
    /// It may exist: only HEIR knows.
    Unknown,
}

/// One state of the world.
#[derive(Debug)]
pub struct Snapshot {
    pub(crate) tenants: HashMap<TenantId, Arc<Tenant>>,
    pub(crate) coverage: Coverage,
    pub(crate) origin: Origin,
    pub(crate) position: Position,
    pub(crate) revision_header: HeaderValue,
    pub(crate) extensions: Arc<ExtensionRecords>,
    pub(crate) problems: Arc<Problems>,
    /// What the records, and those of the local directory, have become.
    pub(crate) registry: Arc<Registry>,
    /// Counts publications of this process; never goes back.
    pub(crate) generation: u64,
}

impl Snapshot {
    /// Nothing is known.
    pub fn empty() -> Self {
        Self {
            tenants: HashMap::new(),
            coverage: Coverage::Keys,
            origin: Origin::None,
            position: Position::default(),
            revision_header: HeaderValue::from_static("none"),
            extensions: Arc::default(),
            problems: Arc::default(),
            registry: Arc::default(),
            generation: 0,
        }
    }

    /// Looks for a policy. The ids need not be valid.
    pub fn lookup(&self, tenant: &str, policy: &str) -> (Lookup<'_>, Option<&Tenant>) {
        let Some(tenant) = self.tenants.get(tenant) else {
            return (
                if self.coverage == Coverage::Whole {
                    Lookup::Absent
                } else {
                    Lookup::Unknown
                },
                None,
            );
        };
        let lookup = match tenant.policies.get(policy) {
            Some(entry) => entry.found().map_or(Lookup::Absent, Lookup::Found),
            None if self.coverage == Coverage::Whole || tenant.listed => Lookup::Absent,
            None => Lookup::Unknown,
        };
        (lookup, Some(tenant))
    }

    /// A tenant of which anything is known.
    pub fn tenant(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(tenant).map(|tenant| &**tenant)
    }

    /// All tenants of which anything is known.
    pub fn tenants(&self) -> impl Iterator<Item = (&TenantId, &Tenant)> {
        self.tenants.iter().map(|(id, tenant)| (id, &**tenant))
    }

    /// HEIR's version of a policy, whatever hides it.
    pub(crate) fn heir(&self, tenant: &str, policy: &str) -> Option<&Arc<Policy>> {
        self.tenants.get(tenant)?.policies.get(policy)?.heir.as_ref()
    }

    /// The write that waits for HEIR, if lookups see one.
    pub(crate) fn queued(&self, tenant: &str, policy: &str) -> Option<&Queued> {
        self.tenants.get(tenant)?.policies.get(policy)?.queued()
    }

    /// The version that HEIR has once the waiting writes are made, and whether it then has one, as far as is known.
    /// A local file is none of HEIR's.
    pub(crate) fn in_heir(&self, tenant: &str, policy: &str) -> (Option<Arc<Policy>>, Option<bool>) {
        let known = self.tenants.get(tenant);
        let entry = known.and_then(|tenant| tenant.policies.get(policy));
        match entry.map(|entry| (entry.queued(), &entry.heir)) {
            Some((Some(Queued::Put(policy)), _) | (None, Some(policy))) => (Some(policy.clone()), Some(true)),
            Some((Some(Queued::Delete), _)) => (None, Some(false)),
            None | Some((None, None)) => {
                let whole = self.coverage == Coverage::Whole || known.is_some_and(|tenant| tenant.listed);
                (None, whole.then_some(false))
            }
        }
    }

    /// The local directory's version of a policy, whatever hides it.
    pub(crate) fn file(&self, tenant: &str, policy: &str) -> Option<&Arc<Policy>> {
        self.tenants.get(tenant)?.policies.get(policy)?.file()
    }

    /// Number of policies that HEIR has, as far as is known.
    pub(crate) fn heir_count(&self) -> usize {
        self.tenants
            .values()
            .flat_map(|t| t.policies.values())
            .filter(|entry| entry.heir.is_some())
            .count()
    }

    /// How much absence means.
    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    /// Where HEIR's part came from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// Which point of HEIR's history HEIR's part is.
    pub fn position(&self) -> &Position {
        &self.position
    }

    /// The number of the publication; higher ones are later.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The value of `x-beamline-snapshot-revision`: HEIR's revision, or `none`.
    pub fn revision_header(&self) -> &HeaderValue {
        &self.revision_header
    }

    /// Policies that could not be taken, with what is wrong with them.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// The extensions' records, as HEIR has them.
    pub fn extensions(&self) -> &Arc<ExtensionRecords> {
        &self.extensions
    }

    /// The extensions that can be called.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// How many policies were taken although a write of them would be refused.
    pub fn broken_count(&self) -> usize {
        self.tenants.values().map(|tenant| tenant.broken_count).sum()
    }

    /// The last good versions of broken policies.
    pub(crate) fn last_good(&self) -> impl Iterator<Item = (&TenantId, &PolicyId, &Arc<Policy>)> {
        self.tenants.iter().flat_map(|(tenant, t)| {
            let broken = t.broken.iter();
            broken.filter_map(move |(id, broken)| Some((tenant, id, broken.last_good.as_ref()?)))
        })
    }
}
