//! What a refresh brings, already checked, before it is activated.

use std::sync::Arc;

use bytes::Bytes;
use hashbrown::HashMap;

use super::{
    key::{Key, Problems},
    policy::Policy,
    provenance::{Coverage, Position},
    state::Snapshot,
};
use crate::{
    extensions::ExtensionRecords,
    policy::{ETag, PolicyDocument, PolicyId, Problem, TenantId},
};

/// All that HEIR has, or all that it has of one tenant.
#[derive(Debug)]
pub struct Incoming {
    /// How much this speaks for.
    pub scope: Scope,
    /// Which point of HEIR's history this is.
    pub position: Position,
    /// How much absence means, once this is taken.
    pub coverage: Coverage,
    /// The policies that can be taken.
    pub policies: HashMap<TenantId, HashMap<PolicyId, Arc<Policy>>>,
    /// The extensions' records, where everything was asked for.
    pub extensions: ExtensionRecords,
    /// Documents that could not be taken. Each keeps its last good version.
    pub problems: Problems,
    /// The last good versions of policies that are broken, where an earlier run left them.
    pub last_good: HashMap<Key, Arc<Policy>>,
}

/// How much an [`Incoming`] speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// All tenants.
    Everything,
    /// One tenant.
    Tenant(TenantId),
}

impl Incoming {
    /// Without policies yet.
    pub fn new(scope: Scope, coverage: Coverage, position: Position) -> Self {
        Self {
            scope,
            position,
            coverage,
            policies: HashMap::new(),
            extensions: ExtensionRecords::new(),
            problems: Problems::new(),
            last_good: HashMap::new(),
        }
    }

    /// Checks a document and takes it. What is in memory already is not kept twice. A document that cannot be
    /// taken becomes a problem.
    pub fn take(
        &mut self,
        base: &Snapshot,
        key: Key,
        bytes: Bytes,
        etag: Option<ETag>,
        revision: Option<u64>,
    ) {
        match check(base, &key, bytes, etag, revision) {
            Ok(policy) => self.put(key, policy),
            Err(problems) => {
                self.problems.insert(key, problems);
            }
        }
    }

    /// Takes a policy that was checked.
    pub fn put(&mut self, (tenant, policy_id): Key, policy: Arc<Policy>) {
        self.policies.entry(tenant).or_default().insert(policy_id, policy);
    }

    /// Number of policies.
    pub fn len(&self) -> usize {
        self.policies.values().map(HashMap::len).sum()
    }

    /// Whether there are no policies.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a policy is known to exist, be it broken.
    pub(crate) fn mentions(&self, tenant: &TenantId, policy: &PolicyId) -> bool {
        self.policies
            .get(tenant)
            .is_some_and(|policies| policies.contains_key(policy))
            || self.problems.contains_key(&(tenant.clone(), policy.clone()))
    }
}

/// A document as a policy, or what is wrong with it. The version in memory is used again where it is the same. Where HEIR gives
/// another document the tag of the one in memory, that tag names neither, and the document gets one of its own: who has the
/// old one must not be told that it is the new one.
pub fn check(
    base: &Snapshot,
    (tenant, policy_id): &Key,
    bytes: Bytes,
    mut etag: Option<ETag>,
    revision: Option<u64>,
) -> Result<Arc<Policy>, Vec<Problem>> {
    if let Some(known) = base.heir(tenant.as_str(), policy_id.as_str()) {
        let document = &known.document;
        let has_same_tag = etag
            .as_ref()
            .is_none_or(|etag| document.etag().comes_from(etag, document.bytes()));
        if document.bytes() == &bytes && has_same_tag {
            if revision == known.revision {
                return Ok(known.clone());
            }
            etag = Some(document.etag().clone());
        } else if has_same_tag && let Some(tag) = &mut etag {
            let (tenant, policy) = (tenant.as_str(), policy_id.as_str());
            tracing::warn!(tenant, policy, etag = %tag, "HEIR gave another document the entity tag of the one before.");
            *tag = tag.told_apart(&bytes);
        }
    }
    let document = PolicyDocument::parse_tagged(bytes, etag)?;
    Ok(Arc::new(Policy::new(document, revision)))
}

/// What happened in HEIR since a position.
#[derive(Debug)]
pub struct ChangeSet {
    /// Where the changes begin.
    pub from: Position,
    /// Where they lead.
    pub to: Position,
    /// The changes, oldest first.
    pub operations: Vec<Operation>,
    /// Documents among them that could not be taken.
    pub problems: Problems,
}

/// One thing that happened.
#[derive(Debug)]
pub enum Operation {
    /// A policy has a new version.
    Put {
        /// Tenant and policy.
        key: Key,
        /// The new version.
        policy: Arc<Policy>,
    },
    /// A policy is gone.
    Delete {
        /// Tenant and policy.
        key: Key,
        /// HEIR's revision of the deletion; `None` where HEIR gives none.
        revision: Option<u64>,
    },
    /// An extension has a new record.
    PutExtension {
        /// The extension.
        id: String,
        /// The registry record, as JSON.
        record: Arc<str>,
    },
    /// An extension is gone.
    DeleteExtension {
        /// The extension.
        id: String,
    },
}
