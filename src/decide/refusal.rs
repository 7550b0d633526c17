//! Why there is no decision.

use serde_json::{Map, Value, json};

use super::{Executed, ExtensionError, memory::Refused, stage::Stage};
use crate::{
    failure::{ErrorCode, Failure, LimitState},
    policy::{LimitScope, PolicyId, RateLimit, TenantId},
};

/// Every way in which a request for a decision is refused.
#[derive(Debug, Clone, PartialEq)]
pub enum Refusal {
    /// The tenant is not on the list of those that may ask.
    TenantNotAllowed {
        /// The tenant of the request.
        tenant: TenantId,
    },
    /// The tenant has no policy of this name.
    PolicyNotFound {
        /// The tenant of the request.
        tenant: TenantId,
        /// The policy that the request names.
        policy_id: PolicyId,
    },
    /// A policy's, the tenant's or the process's bucket is empty.
    RateLimited(Box<RateLimited>),
    /// The request's `deadline` has passed.
    DeadlineExceeded {
        /// Unix milliseconds.
        deadline_ms: i64,
    },
    /// The policy's lists of extensions are longer than allowed.
    TooDeep {
        /// Extensions in all lists together, scorers included.
        depth: usize,
        /// Extensions that are allowed.
        max: usize,
        /// Pre-processors, validators, post-processors.
        counts: [usize; 3],
    },
    /// One list of extensions is longer than allowed.
    TooMany {
        /// The list.
        stage: Stage,
        /// Its length.
        count: usize,
        /// The length that is allowed.
        max: usize,
    },
    /// A required pre- or post-processor failed.
    ProcessorFailed {
        /// The list that names the extension.
        stage: Stage,
        /// The extension's id in the registry.
        id: Box<str>,
        /// Why it gave no answer.
        error: ExtensionError,
        /// The extensions before it, in their order.
        executed: Vec<Executed>,
    },
    /// A validator rejected the request, or failed.
    Blocked {
        /// The validator's id in the registry.
        id: Box<str>,
        /// The validator's reason, or the name of its failure.
        reason: Box<str>,
        /// The validator's details, or those of its failure.
        details: Map<String, Value>,
        /// The extensions before it, in their order.
        executed: Vec<Executed>,
    },
    /// Weights, rules and the last resort yield nothing.
    NoProvider {
        /// The tenant of the request.
        tenant: TenantId,
        /// The policy that the request names.
        policy_id: PolicyId,
    },
}

/// A bucket had no token.
#[derive(Debug, Clone, PartialEq)]
pub struct RateLimited {
    /// Which requests share the bucket.
    pub scope: LimitScope,
    /// The tenant of the request.
    pub tenant: TenantId,
    /// The policy that the request names.
    pub policy_id: PolicyId,
    /// The rule under which the bucket refills.
    pub limit: RateLimit,
    /// When a token comes.
    pub refused: Refused,
}

impl Refusal {
    /// The platform's internal name, as `details.error_type` has it.
    pub fn error_type(&self) -> &'static str {
        match self {
            Self::TenantNotAllowed { .. } => "acl_denied",
            Self::PolicyNotFound { .. } => "policy_not_found",
            Self::RateLimited(_) => "rate_limit_exceeded",
            Self::DeadlineExceeded { .. } => "deadline_exceeded",
            Self::TooDeep { .. } => "pipeline_too_deep",
            Self::TooMany {
                stage: Stage::Pre, ..
            } => "too_many_pre_processors",
            Self::TooMany {
                stage: Stage::Validator,
                ..
            } => "too_many_validators",
            Self::TooMany {
                stage: Stage::Scorer, ..
            } => "too_many_scorers",
            Self::TooMany {
                stage: Stage::Post, ..
            } => "too_many_post_processors",
            Self::ProcessorFailed {
                stage: Stage::Post, ..
            } => "post_processor_failed",
            Self::ProcessorFailed {
                stage: Stage::Scorer, ..
            } => "scorer_failed",
            Self::ProcessorFailed { .. } => "pre_processor_failed",
            Self::Blocked { .. } => "validator_blocked",
            Self::NoProvider { .. } => "no_provider_available",
        }
    }

    /// The row of the table of failures.
    pub const fn code(&self) -> ErrorCode {
        match self {
            Self::TenantNotAllowed { .. } => ErrorCode::TenantForbidden,
            Self::PolicyNotFound { .. } => ErrorCode::PolicyNotFound,
            Self::RateLimited(_) => ErrorCode::RateLimitExceeded,
            Self::DeadlineExceeded { .. } => ErrorCode::DeadlineExceeded,
            Self::TooDeep { .. } | Self::TooMany { .. } => ErrorCode::PipelineTooLong,
            Self::ProcessorFailed {
                stage: Stage::Post, ..
            } => ErrorCode::PostProcessorFailed,
            Self::ProcessorFailed { .. } => ErrorCode::ExtensionError,
            Self::Blocked { .. } => ErrorCode::ValidatorBlocked,
            Self::NoProvider { .. } => ErrorCode::DecisionFailed,
        }
    }

    /// The refusal on its way to the caller.
    pub fn failure(&self) -> Failure {
        let mut failure = Failure::new(self.code(), self.message());
        failure.details = self.details();
        failure = failure.detail("error_type", self.error_type());
        match self {
            Self::RateLimited(limited) => failure
                .retry_after_seconds(limited.refused.retry_after_seconds)
                .limit(LimitState {
                    limit: limited.limit.per_window(),
                    remaining: 0,
                    reset_unix_seconds: limited.refused.reset_unix_seconds,
                }),
            // Breakers open again in seconds, and a client that asks at once is part of the stampede.
            Self::NoProvider { .. } => failure.retry_after_seconds(1),
            _ => failure,
        }
    }

    /// A sentence for a person.
    pub fn message(&self) -> String {
        match self {
            Self::TenantNotAllowed { tenant } => format!("Tenant {tenant} may not ask for decisions here"),
            Self::PolicyNotFound { tenant, policy_id } => format!("Policy '{tenant}/{policy_id}' not found"),
            Self::RateLimited(limited) => match limited.scope {
                LimitScope::Policy => format!("Rate limit exceeded for policy {}", limited.policy_id),
                LimitScope::Tenant => format!("Rate limit exceeded for tenant {}", limited.tenant),
                LimitScope::Global => "Rate limit exceeded for this sidecar".to_owned(),
            },
            Self::DeadlineExceeded { .. } => "The request's deadline has passed".to_owned(),
            Self::TooDeep { depth, max, .. } => format!("Extension pipeline too deep: {depth} > {max}"),
            Self::TooMany { stage, count, max } => {
                let what = match stage {
                    Stage::Pre => "pre-processors",
                    Stage::Validator => "validators",
                    Stage::Scorer => "scorers",
                    Stage::Post => "post-processors",
                };
                format!("Too many {what}: {count} > {max}")
            }
            Self::ProcessorFailed { stage, id, error, .. } => {
                let what = match stage {
                    Stage::Post => "Post-processor",
                    Stage::Scorer => "Scorer",
                    Stage::Pre | Stage::Validator => "Pre-processor",
                };
                format!("{what} failed: {id} - {}", error.name())
            }
            Self::Blocked { id, reason, .. } => format!("Validator blocked request: {id} - {reason}"),
            Self::NoProvider { .. } => {
                "No provider available: weights failed and no fallback configured".to_owned()
            }
        }
    }

    /// `error.details`, without `error_type`.
    pub fn details(&self) -> Map<String, Value> {
        let details = match self {
            Self::TenantNotAllowed { tenant } => {
                json!({"tenant_id": tenant, "acl_reason": "tenant_not_allowed"})
            }
            Self::PolicyNotFound { tenant, policy_id } | Self::NoProvider { tenant, policy_id } => {
                json!({"tenant_id": tenant, "policy_id": policy_id})
            }
            Self::RateLimited(limited) => {
                let RateLimited {
                    scope,
                    tenant,
                    policy_id,
                    limit,
                    refused,
                } = &**limited;
                json!({
                    "scope": scope,
                    "tenant_id": tenant,
                    "policy_id": policy_id,
                    "limit": limit.per_window(),
                    "burst": limit.burst,
                    "window_seconds": limit.window_seconds,
                    "retry_after_seconds": refused.retry_after_seconds,
                })
            }
            Self::DeadlineExceeded { deadline_ms } => json!({"deadline": deadline_ms}),
            Self::TooDeep {
                depth,
                max,
                counts: [pre, validators, post],
            } => json!({
                "depth": depth, "max_depth": max, "pre_count": pre, "validators_count": validators, "post_count": post,
            }),
            Self::TooMany { count, max, .. } => json!({"count": count, "max_count": max}),
            Self::ProcessorFailed {
                id, error, executed, ..
            } => {
                let mut details = error.details();
                details.insert("extension_id".into(), (**id).into());
                details.insert("reason".into(), error.name().into());
                details.insert("executed_extensions".into(), json!(executed));
                Value::Object(details)
            }
            Self::Blocked {
                id,
                reason,
                details,
                executed,
            } => {
                json!({"extension_id": id, "reason": reason, "details": details, "executed_extensions": executed})
            }
        };
        match details {
            Value::Object(details) => details,
            _ => Map::new(),
        }
    }
}
