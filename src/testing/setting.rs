//! The setting of a case: the process's rules, and the memory.

use super::case::{Case, CaseLimit, CaseMemory};
use crate::{
    decide::{
        FallbackEvaluation, Rules, Timestamp,
        memory::{CallResult, Memory, MemoryLimits, Session, State},
    },
    policy::{BreakerSettings, LimitScope, ProviderId, RateLimit, RoutingPolicy, TenantId},
};

/// The rules of the process, changed as the case sets them.
pub(super) fn rules(case: &Case) -> Rules {
    let limit = |scope, limit: CaseLimit| RateLimit {
        scope,
        requests_per_second: limit.requests_per_second.into(),
        burst: limit.burst,
        window_seconds: 1,
    };
    let mut rules = Rules {
        fallback_evaluation: case
            .rules
            .fallback_evaluation
            .unwrap_or(FallbackEvaluation::OnFailure),
        tenant_limit: case.rules.tenant_limit.map(|one| limit(LimitScope::Tenant, one)),
        global_limit: case.rules.global_limit.map(|one| limit(LimitScope::Global, one)),
        ..Rules::default()
    };
    if let Some(status_classes) = case.rules.status_classes {
        rules.conditions.status_classes = status_classes;
    }
    rules
}

/// A memory with the content that a case describes, for one tenant.
pub fn remembered(wanted: &CaseMemory, tenant: &TenantId, policy: &RoutingPolicy, now: Timestamp) -> Memory {
    let memory = Memory::new(MemoryLimits {
        sessions: 10_000,
        buckets: 1_000,
        providers: 1_000,
    });
    for session in &wanted.sticky {
        let then = Timestamp::from_unix_ms(
            now.unix_ms
                .saturating_sub(session.age_seconds.saturating_mul(1_000)),
        );
        let name = Session {
            tenant,
            value: &session.session,
        };
        memory.sticky.store(
            name,
            &ProviderId::new(&session.provider),
            session.ttl_seconds,
            then,
        );
    }
    let settings = policy
        .circuit_breaker
        .as_deref()
        .copied()
        .unwrap_or_else(BreakerSettings::built_in);
    for (provider, state) in &wanted.breakers {
        let provider = ProviderId::new(provider);
        memory.breakers.configure(tenant, &provider, settings, now);
        if *state != State::Closed {
            // As in operation: by enough failures.
            for _ in 0..settings.failure_threshold {
                let _transition = memory
                    .breakers
                    .record(tenant, &provider, CallResult::Failure, None, now);
            }
        }
        if *state == State::HalfOpen {
            let _was = memory
                .breakers
                .force_recovery_to_half_open(tenant, provider.as_str(), now);
        }
    }
    for provider in &wanted.unhealthy {
        memory.health.set(tenant, &ProviderId::new(provider), false);
    }
    memory
}
