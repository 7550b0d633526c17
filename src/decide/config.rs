//! The configuration of decisions.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{FallbackEvaluation, Rules, memory::MemoryLimits};
use crate::policy::{ConditionRules, DetailLevel, LimitScope, RateLimit, TenantId};

/// How decisions are made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct DecideConfig {
    /// Uses the seed in a request's header `x-beamline-seed`, so that a decision can be repeated. If off, the header is
    /// ignored: a client that chooses the seed chooses the provider.
    pub allow_seed: bool,
    /// The value of `environment` in every context, for conditions. Empty: the request's own, if any.
    pub environment: String,
    /// How detailed explanations are, if neither the request nor the policy specifies it.
    pub detail_level: Detail,
    /// When fallback rules apply: first if the request reports a failed provider, or only after the weights yield no
    /// provider.
    pub fallback_evaluation: FallbackEvaluation,
    /// Whether `5xx` in conditions on `status` stands for every status from 500 to 599, and so on.
    pub status_classes: bool,
    /// A request whose metadata has `dry_run: true` is a dry run, as on the platform: it is decided, but no extension is
    /// called and nothing is remembered. Switch it off if untrusted clients set metadata: they could bypass every guard.
    pub allow_metadata_dry_run: bool,
    /// The tenants that may request decisions; unset: all.
    pub allowed_tenants: Option<Vec<TenantName>>,
    /// The most sticky sessions that are remembered; beyond that the least recently used is forgotten.
    #[schemars(range(min = 1, max = 100_000_000))]
    pub max_sticky_sessions: usize,
    /// The most token buckets that are remembered.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_rate_limit_buckets: usize,
    /// The most breakers, estimates and health states that are remembered, for all tenants together.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub max_providers: usize,
    /// The limit of each tenant, regardless of its policies. Unset: no limit.
    pub tenant_limit: Option<Limit>,
    /// The limit of all tenants together. Unset: no limit.
    pub global_limit: Option<Limit>,
    /// Keeps sessions, breakers and buckets in `state_dir` over a restart.
    pub persist: bool,
    /// How often they are written, if anything changed.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub persist_interval_ms: u64,
    /// Logs one line for each decision, at level info, without personal data.
    pub log_decisions: bool,
}

/// A tenant's id.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct TenantName(#[schemars(regex(pattern = "^[A-Za-z0-9_.-]{1,255}$"))] pub String);

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// Tokens that come back each second.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub requests_per_second: u32,
    /// Tokens that the bucket holds.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub burst: u32,
}

/// A level of detail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Detail {
    Minimal,
    Detailed,
    Verbose,
}

impl Default for DecideConfig {
    fn default() -> Self {
        Self {
            allow_seed: false,
            environment: String::new(),
            detail_level: Detail::Detailed,
            fallback_evaluation: FallbackEvaluation::OnFailure,
            status_classes: true,
            allow_metadata_dry_run: true,
            allowed_tenants: None,
            max_sticky_sessions: 100_000,
            max_rate_limit_buckets: 100_000,
            max_providers: 10_000,
            tenant_limit: None,
            global_limit: None,
            persist: false,
            persist_interval_ms: 10_000,
            log_decisions: false,
        }
    }
}

impl DecideConfig {
    /// The rules for the decision core.
    pub fn rules(&self) -> Rules {
        let limit = |scope| {
            move |limit: Limit| RateLimit {
                scope,
                requests_per_second: limit.requests_per_second.into(),
                burst: limit.burst,
                window_seconds: 1,
            }
        };
        let allowed = self.allowed_tenants.as_ref();
        Rules {
            // A name that is not an id, which the schema refuses, could not request decisions either.
            allowed_tenants: allowed.map(|names| {
                names
                    .iter()
                    .filter_map(|name| TenantId::parse(&name.0).ok())
                    .collect()
            }),
            fallback_evaluation: self.fallback_evaluation,
            allow_metadata_dry_run: self.allow_metadata_dry_run,
            conditions: ConditionRules {
                status_classes: self.status_classes,
            },
            detail_level: match self.detail_level {
                Detail::Minimal => DetailLevel::Minimal,
                Detail::Detailed => DetailLevel::Detailed,
                Detail::Verbose => DetailLevel::Verbose,
            },
            tenant_limit: self.tenant_limit.map(limit(LimitScope::Tenant)),
            global_limit: self.global_limit.map(limit(LimitScope::Global)),
            ..Rules::default()
        }
    }

    /// Sizes of the memory.
    pub fn memory_limits(&self) -> MemoryLimits {
        MemoryLimits {
            sessions: self.max_sticky_sessions,
            buckets: self.max_rate_limit_buckets,
            providers: self.max_providers,
        }
    }
}
