//! Token buckets: of one policy, of a tenant, of the whole process.

use crate::{
    decide::Moment,
    policy::{PolicyId, RateLimit, TenantId},
};

/// Whose bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BucketKey {
    Global,
    Tenant(TenantId),
    Policy(TenantId, PolicyId),
}

/// A token was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    pub tokens: u32,
    /// Unix seconds at which the next tokens come.
    pub reset_unix_seconds: u64,
}

/// There was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// At least 1.
    pub retry_after_seconds: u64,
    pub reset_unix_seconds: u64,
}

/// All buckets.
#[derive(Debug)]
pub struct Buckets {}

impl Buckets {
    pub fn new(_buckets: usize) -> Self {
        Self {}
    }

    /// Takes a token, if there is one.
    pub fn take(&self, _key: &BucketKey, _limit: &RateLimit, _now: Moment) -> Result<Remaining, Refused> {
        todo!()
    }

    /// What `take` would say, changing nothing.
    pub fn peek(&self, _key: &BucketKey, _limit: &RateLimit, _now: Moment) -> Result<Remaining, Refused> {
        todo!()
    }

    /// Puts a token back that was taken for a request which a narrower limit then refused.
    pub fn give_back(&self, _key: &BucketKey) {
        todo!()
    }
}
