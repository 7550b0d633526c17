//! What decisions remember, and what survives a change of the snapshot: sticky sessions, breakers, buckets, latency
//! estimates, health. Every table is bounded; none is shared by tenants under one lock.

mod breaker;
mod classify;
mod estimates;
mod health;
pub mod persist;
mod provider_key;
mod rate_limit;
mod sticky;
pub(crate) mod table;
pub(crate) mod window;

pub use breaker::{Admission, BreakerRecord, BreakerStatus, Breakers, State, Transition, Trigger};
pub use classify::{CallResult, classify};
pub use estimates::{Estimate, Estimates};
pub use health::Health;
pub use rate_limit::{
    BucketKey, BucketRecord, BucketStatus, Buckets, LONGEST_RETRY_AFTER_SECONDS, Refused, Remaining,
};
pub use sticky::{Session, SessionRecord, SessionView, StickyTable};
pub(crate) use table::Table;

use crate::{clock::Timestamp, policy::TenantId};

/// Sizes of the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MemoryLimits {
    /// Sticky sessions.
    pub sessions: usize,
    /// Token buckets.
    pub buckets: usize,
    /// Providers with a breaker, an estimate or a health state, counted per tenant.
    pub providers: usize,
}

/// All of it.
#[derive(Debug)]
pub struct Memory {
    /// Sticky sessions.
    pub sticky: StickyTable,
    /// Breakers of providers.
    pub breakers: Breakers,
    /// Token buckets.
    pub buckets: Buckets,
    /// Latency and cost of providers, from their results.
    pub estimates: Estimates,
    /// Providers that failed their active checks.
    pub health: Health,
}

impl Memory {
    /// An empty memory.
    pub fn new(limits: MemoryLimits) -> Self {
        Self {
            sticky: StickyTable::new(limits.sessions),
            breakers: Breakers::new(limits.providers),
            buckets: Buckets::new(limits.buckets),
            estimates: Estimates::new(limits.providers),
            health: Health::new(limits.providers),
        }
    }

    /// Forgets what time has made worthless. Once a minute is often enough.
    pub fn sweep(&self, now: Timestamp) -> Swept {
        Swept {
            sessions: self.sticky.clear_expired(now),
            buckets: self.buckets.sweep(now),
        }
    }

    /// Forgets everything of tenants that are not to be kept, and says how many entries that were. Where no tenant
    /// has gone it costs a look at every key, and at no session. Only for a snapshot that knows every tenant: one that
    /// is merely not known yet has sessions that are worth keeping.
    pub fn prune(&self, keep: &mut impl FnMut(&TenantId) -> bool) -> usize {
        self.sticky.prune(keep)
            + self.breakers.prune(keep)
            + self.buckets.prune(keep)
            + self.estimates.prune(keep)
            + self.health.prune(keep)
    }
}

/// What a sweep has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Sticky sessions whose time was over.
    pub sessions: usize,
    /// Token buckets that were idle.
    pub buckets: usize,
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::policy::{BreakerSettings, LimitScope, ProviderId, RateLimit};

    #[test]
    fn a_tenant_that_vanished_leaves_nothing_and_the_others_keep_all() {
        let memory = Memory::new(MemoryLimits {
            sessions: 100,
            buckets: 100,
            providers: 100,
        });
        let now = Timestamp::from_unix_ms(0);
        let tenants = ["gone", "stays"].map(|name| TenantId::parse(name).unwrap());
        let (openai, value) = (ProviderId::new("openai"), json!("s"));
        let limit = RateLimit {
            scope: LimitScope::Tenant,
            requests_per_second: 1.0,
            burst: 1,
            window_seconds: 1,
        };
        for tenant in &tenants {
            memory.sticky.store(
                Session {
                    tenant,
                    value: &value,
                },
                &openai,
                60,
                now,
            );
            memory
                .breakers
                .configure(tenant, &openai, BreakerSettings::default(), now);
            memory
                .buckets
                .take(&BucketKey::Tenant(tenant.clone()), &limit, now)
                .unwrap();
            memory
                .estimates
                .record(tenant, &openai, Some(1), None, false, now);
            memory.health.set(tenant, &openai, false);
        }
        let keep = |tenant: &TenantId| tenant.as_str() == "stays";
        assert_eq!(memory.prune(&mut { keep }), 5);
        assert_eq!(memory.prune(&mut { keep }), 0);
        let [gone, stays] = &tenants;
        for (tenant, there) in [(gone, false), (stays, true)] {
            let session = Session {
                tenant,
                value: &value,
            };
            assert_eq!(memory.sticky.peek(session, 60, now).is_some(), there);
            assert_eq!(memory.breakers.state(tenant, "openai").is_some(), there);
            let bucket = BucketKey::Tenant(tenant.clone());
            assert_eq!(memory.buckets.status(&bucket).is_some(), there);
            assert_eq!(memory.estimates.of(tenant, "openai").is_some(), there);
            assert_eq!(memory.health.is_unhealthy(tenant, "openai"), there);
        }
        let swept = Swept {
            sessions: 1,
            buckets: 1,
        };
        assert_eq!(memory.sweep(Timestamp::from_unix_ms(7_200_000)), swept);
        assert_eq!(memory.sweep(Timestamp::from_unix_ms(7_200_000)), Swept::default());
    }
}
