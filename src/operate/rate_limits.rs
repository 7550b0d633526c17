//! Token buckets of rate limits.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operator::{Limit, Operator};
use crate::{
    clock::Timestamp,
    decide::memory::{BucketKey, BucketStatus},
    failure::{ErrorCode, Failure},
    policy::{PolicyId, TenantId},
};

/// How many buckets there are, the one of all requests, and those of one tenant.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct RateLimitList {
    /// Of all tenants.
    pub buckets: usize,
    /// How many had to go for others since the start.
    pub evicted: u64,
    /// The bucket of all requests, if it is in use.
    pub global: Option<BucketStatus>,
    /// The tenant that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<TenantId>,
    /// The buckets of the tenant that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<BucketEntry>>,
}

/// One bucket of a tenant.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BucketEntry {
    /// `null`: the bucket of the whole tenant.
    pub policy_id: Option<PolicyId>,
    /// The tokens and the limits of the bucket.
    #[serde(flatten)]
    pub status: BucketStatus,
}

/// Whose bucket is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum RateLimitScope {
    /// The bucket of all requests.
    Global,
    /// The bucket of one tenant.
    Tenant,
    /// The bucket of one policy.
    Policy,
}

/// A bucket was filled again.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct RateLimitReset {
    /// Always `true`.
    pub ok: bool,
}

impl Operator {
    /// How many buckets there are, and up to `limit` of those of `tenant`.
    pub fn rate_limits(&self, tenant: Option<TenantId>, limit: Limit) -> RateLimitList {
        let buckets = &self.memory.buckets;
        let entry = |(key, status)| BucketEntry {
            policy_id: match key {
                BucketKey::Policy(_, policy_id) => Some(policy_id),
                BucketKey::Tenant(_) | BucketKey::Global => None,
            },
            status: on_the_wall(status),
        };
        let list = tenant
            .as_ref()
            .map(|tenant| buckets.list(tenant, limit.get()).into_iter().map(entry).collect());
        RateLimitList {
            buckets: buckets.len(),
            evicted: buckets.evicted(),
            global: buckets.status(&BucketKey::Global).map(on_the_wall),
            tenant_id: tenant,
            list,
        }
    }

    /// Fills a bucket again, by forgetting it.
    ///
    /// # Errors
    /// `not_found`: there is no such bucket.
    pub fn reset_rate_limit(&self, bucket: &BucketKey) -> Result<RateLimitReset, Failure> {
        if self.memory.buckets.reset(bucket) {
            Ok(RateLimitReset { ok: true })
        } else {
            Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such bucket: no request has used it lately",
            ))
        }
    }
}

/// With its time as the system's clock would have said it.
fn on_the_wall(status: BucketStatus) -> BucketStatus {
    BucketStatus {
        last_refill: Timestamp::from_unix_ms(status.last_refill).on_the_wall().unix_ms,
        ..status
    }
}

impl RateLimitScope {
    /// The bucket of a scope; without a scope, that of a policy.
    ///
    /// # Errors
    /// `invalid_request`: the ids are not those that the scope needs.
    pub fn bucket(
        scope: Option<Self>,
        tenant: Option<TenantId>,
        policy: Option<PolicyId>,
    ) -> Result<BucketKey, Failure> {
        match (scope, tenant, policy) {
            (Some(Self::Global), _, None) => Ok(BucketKey::Global),
            (Some(Self::Tenant), Some(tenant), None) => Ok(BucketKey::Tenant(tenant)),
            (None | Some(Self::Policy), Some(tenant), Some(policy)) => Ok(BucketKey::Policy(tenant, policy)),
            _ => Err(Failure::new(
                ErrorCode::InvalidRequest,
                "name a tenant and a policy, or scope=tenant and a tenant, or scope=global",
            )),
        }
    }
}
