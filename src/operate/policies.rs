//! The policies in memory.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::operator::Operator;
use crate::{
    failure::{ErrorCode, Failure},
    policy::{ETag, PolicyId, Problem, TenantId},
    snapshot::{Lookup, Source},
};

/// The tenants, or the policies of one.
#[derive(Debug, Clone, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum PolicyList {
    /// Without a tenant in the query.
    Tenants(TenantList),
    /// With a tenant in the query.
    Policies(TenantPolicies),
}

/// The tenants with policies in memory, by id.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TenantList {
    /// Sorted by id.
    pub tenants: Vec<TenantEntry>,
}

/// One tenant and how many policies it has.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TenantEntry {
    /// The tenant.
    pub tenant_id: TenantId,
    /// Number of its policies in memory.
    pub policies: usize,
}

/// The policies of one tenant, by id.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct TenantPolicies {
    /// The tenant.
    pub tenant_id: String,
    /// Sorted by id.
    pub policies: Vec<PolicyEntry>,
}

/// One policy of a list.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PolicyEntry {
    /// Unique within the tenant.
    pub policy_id: PolicyId,
    /// Identifies the version of the document.
    pub etag: ETag,
    /// HEIR's revision; `null` where HEIR keeps none.
    pub revision: Option<u64>,
    /// Size of the document.
    pub bytes: usize,
    /// Where the policy came from.
    pub source: Source,
}

/// One policy as decisions understand it.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct PolicyDetail {
    /// The tenant.
    pub tenant_id: String,
    /// Unique within the tenant.
    pub policy_id: String,
    /// Identifies the version of the document.
    pub etag: ETag,
    /// HEIR's revision; `null` where HEIR keeps none.
    pub revision: Option<u64>,
    /// Where the policy came from.
    pub source: Source,
    /// The policy in its normal form.
    pub policy: Value,
    /// Warnings about the policy, which was accepted all the same.
    pub problems: Vec<Problem>,
}

impl Operator {
    /// The tenants, or the policies of `tenant`.
    ///
    /// # Errors
    /// `not_found`: the tenant has no policies in memory.
    pub fn policies(&self, tenant: Option<&str>) -> Result<PolicyList, Failure> {
        let snapshot = self.store.load_full();
        let Some(tenant) = tenant else {
            let mut tenants: Vec<_> = snapshot
                .tenants()
                .map(|(id, tenant)| TenantEntry {
                    tenant_id: id.clone(),
                    policies: tenant.size,
                })
                .collect();
            tenants.sort_unstable_by(|a, b| a.tenant_id.cmp(&b.tenant_id));
            return Ok(PolicyList::Tenants(TenantList { tenants }));
        };
        let Some(known) = snapshot.tenant(tenant) else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such tenant in memory",
            ));
        };
        let policies = known.sorted().into_iter().map(|(id, found)| {
            let document = &found.policy.document;
            PolicyEntry {
                policy_id: id.clone(),
                etag: document.etag().clone(),
                revision: found.policy.revision,
                bytes: document.bytes().len(),
                source: found.source(snapshot.origin()),
            }
        });
        Ok(PolicyList::Policies(TenantPolicies {
            tenant_id: tenant.to_owned(),
            policies: policies.collect(),
        }))
    }

    /// One policy as decisions understand it, with what is wrong with it.
    ///
    /// # Errors
    /// `not_found`: there is no such policy in memory.
    pub fn policy(&self, tenant: &str, policy_id: &str) -> Result<PolicyDetail, Failure> {
        let snapshot = self.store.load_full();
        let Lookup::Found(found) = snapshot.lookup(tenant, policy_id).0 else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such policy in memory",
            ));
        };
        let policy = found.policy;
        Ok(PolicyDetail {
            tenant_id: tenant.to_owned(),
            policy_id: policy_id.to_owned(),
            etag: policy.document.etag().clone(),
            revision: policy.revision,
            source: found.source(snapshot.origin()),
            policy: policy.read().to_normalised(tenant, policy_id),
            problems: policy.notes(),
        })
    }
}
