//! A tenant's providers: breakers, estimates, health.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::operator::Operator;
use crate::{
    clock::{Timestamp, now},
    decide::memory::{BreakerStatus, Estimate, State},
    failure::{ErrorCode, Failure},
    policy::{ProviderId, TenantId},
};

/// What decisions remember of a tenant's providers.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProviderList {
    /// The tenant.
    pub tenant_id: TenantId,
    /// By provider.
    pub providers: Vec<ProviderEntry>,
}

/// What decisions remember of one provider.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct ProviderEntry {
    /// Unique within the tenant.
    pub provider_id: ProviderId,
    /// `null`: no policy has asked for a breaker yet.
    pub breaker: Option<BreakerReport>,
    /// `null`: no results yet.
    pub estimate: Option<Estimate>,
    /// Whether health checks find it unhealthy.
    pub unhealthy: bool,
}

/// A provider's breaker, with the settings that it follows.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BreakerReport {
    /// Closed, open or half open.
    pub state: State,
    /// Unix milliseconds.
    pub state_changed_at: u64,
    /// Milliseconds since the state changed.
    pub elapsed_ms: u64,
    /// Milliseconds that an open breaker waits before it becomes half open.
    pub timeout_ms: u64,
    /// Until an open breaker becomes half open; else 0.
    pub remaining_ms: u64,
    /// Trial calls admitted since the breaker became half open.
    pub half_open_calls_count: u32,
    /// Failures in a row.
    pub failure_count: u32,
    /// Successes in the half-open state, towards `success_threshold`.
    pub success_count: u32,
    /// Share of failures in the window, 0 to 1.
    pub error_rate: f64,
    /// Failures in the window.
    pub window_failures: u32,
    /// Results in the window.
    pub window_total: u32,
    /// Since the breaker was made.
    pub total_failures: u64,
    /// Since the breaker was made.
    pub total_successes: u64,
    /// Failures in a row that open the breaker.
    pub failure_threshold: u32,
    /// Successes that close a half-open breaker.
    pub success_threshold: u32,
    /// Trial calls that a half-open breaker admits.
    pub half_open_max_calls: u32,
    /// Share of failures in the window that opens the breaker; above 1 the rate has no effect.
    pub error_rate_threshold: f64,
    /// Length of the window.
    pub error_rate_window_seconds: u32,
    /// Results in the window before the rate counts.
    pub error_rate_min_requests: u32,
    /// Latency above which a failed call opens the breaker at once; `null`: latency opens no breaker.
    pub latency_threshold_ms: Option<u64>,
}

/// What an operator can do to a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum BreakerChange {
    /// Close it; its window stays.
    Close,
    /// Let some calls try the provider.
    HalfOpen,
    /// Close it and forget what it counted.
    Reset,
}

/// A breaker that was changed.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct BreakerChanged {
    /// Always `true`.
    pub ok: bool,
    /// The state before.
    pub was: State,
    /// The breaker after the change; `null` where it was removed in the meantime.
    pub breaker: Option<BreakerReport>,
}

/// Whether there was an estimate to forget.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct EstimateForgotten {
    /// Always `true`.
    pub ok: bool,
    /// `false`: there was no estimate.
    pub forgotten: bool,
}

impl Operator {
    /// Breakers, estimates and health of a tenant's providers.
    pub fn providers(&self, tenant: TenantId) -> ProviderList {
        let memory = &self.memory;
        let breakers = memory.breakers.list(&tenant, now());
        let estimates = memory.estimates.list(&tenant);
        let unhealthy = memory.health.list(&tenant);
        let mut ids: Vec<_> = breakers
            .iter()
            .map(|(id, _)| id)
            .chain(estimates.iter().map(|(id, _)| id))
            .chain(&unhealthy)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        let providers = ids.into_iter().map(|id| {
            let breaker = breakers.iter().find(|(known, _)| known == id);
            let estimate = estimates.iter().find(|(known, _)| known == id);
            ProviderEntry {
                provider_id: id.clone(),
                breaker: breaker.map(|(_, status)| BreakerReport::of(status)),
                estimate: estimate.map(|(_, estimate)| *estimate),
                unhealthy: unhealthy.contains(id),
            }
        });
        ProviderList {
            providers: providers.collect(),
            tenant_id: tenant,
        }
    }

    /// Closes, half opens or resets a provider's breaker.
    ///
    /// # Errors
    /// `not_found`: the tenant's provider has no breaker.
    pub fn change_breaker(
        &self,
        tenant: &TenantId,
        provider: &str,
        change: BreakerChange,
    ) -> Result<BreakerChanged, Failure> {
        let breakers = &self.memory.breakers;
        let was = match change {
            BreakerChange::Close => breakers.force_recovery(tenant, provider, now()),
            BreakerChange::HalfOpen => breakers.force_recovery_to_half_open(tenant, provider, now()),
            BreakerChange::Reset => breakers.reset_recovery_state(tenant, provider, now()),
        };
        let Some(was) = was else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "the tenant's provider has no breaker",
            ));
        };
        tracing::warn!(
            tenant = tenant.as_str(),
            provider,
            was = was.as_str(),
            "A breaker was changed on request."
        );
        let status = breakers.status(tenant, provider, now());
        Ok(BreakerChanged {
            ok: true,
            was,
            breaker: status.as_ref().map(BreakerReport::of),
        })
    }

    /// Forgets how long a provider's calls took and what they cost.
    pub fn forget_estimate(&self, tenant: &TenantId, provider: &str) -> EstimateForgotten {
        EstimateForgotten {
            ok: true,
            forgotten: self.memory.estimates.forget(tenant, provider),
        }
    }
}

impl BreakerReport {
    fn of(status: &BreakerStatus) -> Self {
        let settings = &status.settings;
        Self {
            state: status.state,
            state_changed_at: Timestamp::from_unix_ms(status.state_changed_at)
                .on_the_wall()
                .unix_ms,
            elapsed_ms: status.elapsed_ms,
            timeout_ms: status.timeout_ms,
            remaining_ms: status.remaining_ms,
            half_open_calls_count: status.half_open_calls_count,
            failure_count: status.failure_count,
            success_count: status.success_count,
            error_rate: status.error_rate,
            window_failures: status.window_failures,
            window_total: status.window_total,
            total_failures: status.total_failures,
            total_successes: status.total_successes,
            failure_threshold: settings.failure_threshold,
            success_threshold: settings.success_threshold,
            half_open_max_calls: settings.half_open_max_calls,
            error_rate_threshold: settings.error_rate_threshold,
            error_rate_window_seconds: settings.error_rate_window_seconds,
            error_rate_min_requests: settings.error_rate_min_requests,
            latency_threshold_ms: settings.latency_threshold_ms,
        }
    }
}
