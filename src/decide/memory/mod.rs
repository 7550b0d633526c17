//! What decisions remember, and what survives a change of the snapshot: sticky sessions, breakers, buckets, latency
//! estimates, health. Every table is bounded; none is shared by tenants under one lock.

mod breaker;
mod estimates;
mod health;
mod rate_limit;
mod sticky;
mod table;
mod window;

pub use breaker::{
    Admission, BreakerRecord, BreakerStatus, Breakers, CallResult, State, Transition, Trigger, classify,
};
pub use estimates::{Estimate, Estimates};
pub use health::Health;
pub use rate_limit::{
    BucketKey, BucketRecord, BucketStatus, Buckets, LONGEST_RETRY_AFTER_SECONDS, Refused, Remaining,
};
pub use sticky::{Session, SessionRecord, SessionView, StickyTable};

use super::Moment;
use crate::policy::TenantId;

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
    pub sticky: StickyTable,
    pub breakers: Breakers,
    pub buckets: Buckets,
    pub estimates: Estimates,
    pub health: Health,
}

impl Memory {
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
    pub fn sweep(&self, now: Moment) -> Swept {
        Swept {
            sessions: self.sticky.clear_expired(now),
            buckets: self.buckets.sweep(now),
        }
    }

    /// Forgets everything of tenants that are not to be kept, and says how many entries that were. Where no tenant
    /// has gone it costs a look at every key, and at no session.
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
    pub sessions: usize,
    pub buckets: usize,
}
