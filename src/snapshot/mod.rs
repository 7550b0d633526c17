//! What the sidecar knows: every policy it can answer with, immutable, replaced as a whole.
//!
//! Readers load the current snapshot once per request and see one state of the world. A change builds the next
//! snapshot aside, copying only the tenants it touches.

mod draft;
mod freshness;
mod incoming;
mod metrics;
mod policy;
mod store;

use std::{collections::BTreeMap, sync::Arc};

pub use draft::Draft;
pub use freshness::{Age, Freshness, WhenExpired};
use hashbrown::HashMap;
use http::HeaderValue;
pub use incoming::{ChangeSet, Incoming, Operation, Scope, check};
pub use metrics::{SnapshotMetrics, TenantMetrics};
pub use policy::{Entry, Found, Policy, Queued, Source};
use serde::{Deserialize, Serialize};
pub use store::{Activation, FetchStart, Guarded, SnapshotStore, Withheld};

use crate::{
    extensions::{ExtensionRecords, Registry},
    policy::{PolicyId, Problem, TenantId},
};

/// How much absence means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Coverage {
    /// Only what was asked for is known; an unknown policy may exist.
    Keys,
    /// The tenants that were listed are known whole.
    Tenants,
    /// Everything is known: what is absent does not exist.
    Whole,
}

/// Where HEIR's part of a snapshot came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// Nothing has come from HEIR yet.
    None,
    /// From the disk, written by an earlier run.
    Disk,
    /// From HEIR itself, by this run.
    Heir,
}

/// A place in HEIR's history.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Position {
    /// `None` where HEIR keeps no revisions.
    pub revision: Option<u64>,
    /// Digest over the history up to here, where HEIR keeps one.
    pub chain: Option<Arc<str>>,
}

/// A policy's full name.
pub type Key = (TenantId, PolicyId);

/// Problems by the policy that has them.
pub type Problems = BTreeMap<Key, Vec<Problem>>;

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

    pub fn metrics(&self) -> &TenantMetrics {
        &self.metrics
    }
}

/// The outcome of looking for a policy.
#[derive(Debug)]
pub enum Lookup<'a> {
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
    /// What extensions have against their configurations in policies.
    pub(crate) config_problems: Arc<Problems>,
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
            config_problems: Arc::default(),
            generation: 0,
        }
    }

    /// Looks for a policy. The ids need not exist, nor be owned by the caller.
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

    pub fn tenant(&self, tenant: &str) -> Option<&Tenant> {
        self.tenants.get(tenant).map(|tenant| &**tenant)
    }

    pub fn tenants(&self) -> impl Iterator<Item = (&TenantId, &Tenant)> {
        self.tenants.iter().map(|(id, tenant)| (id, &**tenant))
    }

    /// HEIR's version of a policy, whatever hides it.
    pub(crate) fn heir(&self, tenant: &str, policy: &str) -> Option<&Arc<Policy>> {
        self.tenants.get(tenant)?.policies.get(policy)?.heir.as_ref()
    }

    /// The version that HEIR has once the waiting writes are made, and whether it then has one, as far as is known.
    /// A local file is none of HEIR's.
    pub(crate) fn in_heir(&self, tenant: &str, policy: &str) -> (Option<Arc<Policy>>, Option<bool>) {
        let known = self.tenants.get(tenant);
        let entry = known.and_then(|tenant| tenant.policies.get(policy));
        match entry.map(|entry| (&entry.queued, &entry.heir)) {
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
        self.tenants.get(tenant)?.policies.get(policy)?.file.as_ref()
    }

    /// Number of policies that HEIR has, as far as is known.
    pub(crate) fn heir_count(&self) -> usize {
        self.tenants
            .values()
            .flat_map(|t| t.policies.values())
            .filter(|entry| entry.heir.is_some())
            .count()
    }

    pub fn coverage(&self) -> Coverage {
        self.coverage
    }

    pub fn origin(&self) -> Origin {
        self.origin
    }

    pub fn position(&self) -> &Position {
        &self.position
    }

    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The value of `x-beamline-snapshot-revision`: HEIR's revision, or `none`.
    pub fn revision_header(&self) -> &HeaderValue {
        &self.revision_header
    }

    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    pub fn extensions(&self) -> &ExtensionRecords {
        &self.extensions
    }

    /// The extensions that can be called.
    pub fn registry(&self) -> &Arc<Registry> {
        &self.registry
    }

    /// What extensions have against their configurations in policies.
    pub fn config_problems(&self) -> &Problems {
        &self.config_problems
    }
}
