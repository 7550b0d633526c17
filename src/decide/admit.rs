//! Admission: the checks before a provider is chosen or an extension runs.

use super::{
    Context, Effects, PipelineLimits, RateLimited, Refusal, Rules, Stage, Timestamp,
    memory::{BucketKey, Memory, Remaining},
};
use crate::policy::{LimitScope, Pipeline, PolicyId, RateLimit, RoutingPolicy, TenantId};

impl Rules {
    /// Whether a tenant may request decisions. Checked before its policy is looked up.
    pub fn admit_tenant(&self, tenant: &TenantId) -> Result<(), Refusal> {
        match &self.allowed_tenants {
            Some(allowed) if !allowed.contains(tenant) => Err(Refusal::TenantNotAllowed {
                tenant: tenant.clone(),
            }),
            _ => Ok(()),
        }
    }
}

/// The remaining tokens of the narrowest bucket that admitted a request.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Allowance {
    /// Which requests share the bucket.
    pub scope: LimitScope,
    /// The rule under which the bucket refills.
    pub limit: RateLimit,
    /// Whole tokens left, and when the next ones come.
    pub remaining: Remaining,
}

/// Takes a token from every bucket that applies, the widest first, or from none.
pub(super) fn take_tokens(
    policy: &RoutingPolicy,
    (tenant, policy_id): (&TenantId, &PolicyId),
    rules: &Rules,
    memory: &Memory,
    now: Timestamp,
    effects: Effects,
) -> Result<Option<Allowance>, Refusal> {
    let own = policy.rate_limit.as_deref();
    let limits = [
        rules
            .global_limit
            .as_ref()
            .map(|limit| (LimitScope::Global, limit)),
        rules
            .tenant_limit
            .as_ref()
            .map(|limit| (LimitScope::Tenant, limit)),
        own.map(|limit| (LimitScope::Policy, limit)),
    ];
    let key = |scope| match scope {
        LimitScope::Global => BucketKey::Global,
        LimitScope::Tenant => BucketKey::Tenant(tenant.clone()),
        LimitScope::Policy => BucketKey::Policy(tenant.clone(), policy_id.clone()),
    };
    let mut allowance = None;
    for (index, (scope, limit)) in limits.iter().copied().flatten().enumerate() {
        let taken = match effects {
            Effects::Remembered => memory.buckets.take(&key(scope), limit, now),
            Effects::Tried | Effects::None => memory.buckets.peek(&key(scope), limit, now),
        };
        match taken {
            Ok(remaining) => {
                allowance = Some(Allowance {
                    scope,
                    limit: *limit,
                    remaining,
                })
            }
            Err(refused) => {
                if effects == Effects::Remembered {
                    for (wider, _) in limits.iter().copied().flatten().take(index) {
                        memory.buckets.give_back(&key(wider));
                    }
                }
                return Err(Refusal::RateLimited(Box::new(RateLimited {
                    scope,
                    tenant: tenant.clone(),
                    policy_id: policy_id.clone(),
                    limit: *limit,
                    refused,
                })));
            }
        }
    }
    Ok(allowance)
}

/// Refuses a policy whose lists of extensions are too long.
pub fn check_depth(pipeline: &Pipeline, limits: PipelineLimits) -> Result<(), Refusal> {
    let counts = [pipeline.pre.len(), pipeline.validators.len(), pipeline.post.len()];
    let scorers = pipeline.scorers.len();
    let depth = counts.iter().sum::<usize>() + scorers;
    if depth > limits.total {
        return Err(Refusal::TooDeep {
            depth,
            max: limits.total,
            counts,
        });
    }
    let stages = [
        (Stage::Pre, counts[0], limits.pre),
        (Stage::Validator, counts[1], limits.validators),
        (Stage::Scorer, scorers, limits.scorers),
        (Stage::Post, counts[2], limits.post),
    ];
    match stages.into_iter().find(|(_, count, max)| count > max) {
        Some((stage, count, max)) => Err(Refusal::TooMany { stage, count, max }),
        None => Ok(()),
    }
}

/// Refuses a request whose `deadline`, in epoch milliseconds, has passed at this time of day. Only integers are deadlines.
pub(super) fn check_deadline(context: &Context, now: Timestamp) -> Result<(), Refusal> {
    match context.get("deadline").and_then(serde_json::Value::as_i64) {
        Some(deadline_ms) if i128::from(deadline_ms) < i128::from(now.unix_ms) => {
            Err(Refusal::DeadlineExceeded { deadline_ms })
        }
        _ => Ok(()),
    }
}
