//! What decisions remember, and what survives a change of the snapshot: sticky sessions, breakers, buckets, latency
//! estimates, health. Every table is bounded; none is shared by tenants under one lock.

mod breaker;
mod estimates;
mod health;
mod rate_limit;
mod sticky;

pub use breaker::{Admission, Breakers, CallResult, State, Transition, Trigger};
pub use estimates::{Estimate, Estimates};
pub use health::Health;
pub use rate_limit::{BucketKey, Buckets, Refused, Remaining};
pub use sticky::{Session, StickyTable};

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
}
