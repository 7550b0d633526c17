//! Token buckets: of one policy, of a tenant, of the whole process.
//!
//! A bucket ticks once a second, counted from the moment it was made; every tick brings `requests_per_second` tokens,
//! up to `burst`. Nothing comes between two ticks. The clock of a bucket that has been full for longer than a tick
//! stands still, so that a burst and the next tick never fall together.

use serde::Serialize;

use super::table::Table;
use crate::{
    clock::Timestamp,
    policy::{PolicyId, RateLimit, TenantId},
};

const TICK_MS: u64 = 1_000;
/// A bucket that is unused for this long is forgotten; one with a longer window of its own, after that.
const IDLE_MS: u64 = 3_600_000;
/// Sums of fractions such as 0.1 stay a little below the whole.
const ALMOST: f64 = 1e-9;
/// The longest that a caller is asked to wait.
pub const LONGEST_RETRY_AFTER_SECONDS: u64 = 60;

/// Whose bucket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum BucketKey {
    /// The bucket of all requests of the process.
    Global,
    /// The bucket of all requests of a tenant.
    Tenant(TenantId),
    /// The bucket of the requests under one policy of a tenant.
    Policy(TenantId, PolicyId),
}

impl BucketKey {
    /// The tenant that the bucket belongs to, if it belongs to one.
    pub fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Global => None,
            Self::Tenant(tenant) | Self::Policy(tenant, _) => Some(tenant),
        }
    }
}

/// A token was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Remaining {
    /// Whole tokens left.
    pub tokens: u32,
    /// Unix seconds at which the next tokens come.
    pub reset_unix_seconds: u64,
}

/// There was none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Refused {
    /// 1–60.
    pub retry_after_seconds: u64,
    /// Unix seconds at which a token comes.
    pub reset_unix_seconds: u64,
}

/// A bucket as an operator sees it.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, schemars::JsonSchema)]
pub struct BucketStatus {
    /// As of the last tick before a request.
    pub tokens: f64,
    /// Requests per window, as the policy says them.
    pub limit: f64,
    /// Seconds that `limit` refers to.
    pub window_seconds: u32,
    /// Tokens that the bucket holds when full.
    pub burst: u32,
    /// Unix milliseconds.
    pub last_refill: u64,
}

/// A bucket's content and clock, as it is kept over a restart.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BucketRecord {
    /// Tokens as of the last tick.
    pub tokens: f64,
    /// The time of the last tick.
    pub last_tick: Timestamp,
    /// Tokens that each tick brings.
    pub requests_per_second: f64,
    /// Tokens that the bucket holds when full.
    pub burst: u32,
    /// The policy's window in seconds; an idle bucket is kept for at least as long.
    pub window_seconds: u32,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    last_tick: Timestamp,
    limit: Limit,
}

/// The part of a limit that a bucket works with.
#[derive(Debug, Clone, Copy, PartialEq)]
struct Limit {
    per_tick: f64,
    burst: u32,
    window_seconds: u32,
}

impl From<&RateLimit> for Limit {
    fn from(limit: &RateLimit) -> Self {
        Self {
            per_tick: if limit.requests_per_second.is_finite() {
                limit.requests_per_second.max(0.0)
            } else {
                0.0
            },
            burst: limit.burst,
            window_seconds: limit.window_seconds,
        }
    }
}

impl Bucket {
    fn full(limit: Limit, now: Timestamp) -> Self {
        Self {
            tokens: f64::from(limit.burst),
            last_tick: now,
            limit,
        }
    }

    /// Brings the bucket up to now, under settings that may have changed.
    fn catch_up(&mut self, limit: Limit, now: Timestamp) {
        let burst = f64::from(limit.burst);
        if self.limit != limit {
            self.limit = limit;
            self.tokens = self.tokens.min(burst);
        }
        if self.last_tick.since(now) > TICK_MS {
            // The clock was set back; waiting for it to catch up would refuse for as long.
            self.last_tick = now;
        }
        let ticks = now.since(self.last_tick) / TICK_MS;
        if ticks == 0 {
            return;
        }
        let full_before = self.tokens + (ticks - 1) as f64 * limit.per_tick >= burst;
        self.tokens = (self.tokens + ticks as f64 * limit.per_tick).min(burst);
        self.last_tick = if full_before {
            now
        } else {
            Timestamp::from_unix_ms(self.last_tick.unix_ms + ticks * TICK_MS)
        };
    }

    /// Milliseconds since the epoch at which the bucket holds this many tokens.
    fn reaches(&self, tokens: f64) -> u64 {
        let missing = tokens - self.tokens - ALMOST;
        let ticks = if missing <= 0.0 {
            0
        } else if self.limit.per_tick > 0.0 {
            (missing / self.limit.per_tick).ceil() as u64
        } else {
            u64::MAX
        };
        self.last_tick
            .unix_ms
            .saturating_add(ticks.saturating_mul(TICK_MS))
    }

    fn take(&mut self, limit: Limit, now: Timestamp) -> Result<Remaining, Refused> {
        self.catch_up(limit, now);
        if self.tokens + ALMOST < 1.0 {
            let at = self.reaches(1.0);
            let wait = at.saturating_sub(now.unix_ms).div_ceil(1_000);
            return Err(Refused {
                retry_after_seconds: wait.clamp(1, LONGEST_RETRY_AFTER_SECONDS),
                reset_unix_seconds: at.div_ceil(1_000),
            });
        }
        self.tokens = (self.tokens - 1.0).max(0.0);
        let whole = (self.tokens + ALMOST).floor();
        Ok(Remaining {
            tokens: whole as u32,
            reset_unix_seconds: self.reaches(whole + 1.0).div_ceil(1_000),
        })
    }

    fn is_idle(&self, now: Timestamp) -> bool {
        let window = u64::from(self.limit.window_seconds) * 1_000;
        now.since(self.last_tick) > IDLE_MS.max(window)
    }
}

/// All buckets.
#[derive(Debug)]
pub struct Buckets {
    table: Table<BucketKey, Bucket>,
}

impl Buckets {
    /// Where there would be more than this many, the tenant that has most loses the one used longest ago.
    pub fn new(buckets: usize) -> Self {
        Self {
            table: Table::of_tenants(buckets, BucketKey::tenant, |_| false),
        }
    }

    /// Takes a token, if there is one. A new bucket is full.
    pub fn take(&self, key: &BucketKey, limit: &RateLimit, now: Timestamp) -> Result<Remaining, Refused> {
        let limit = Limit::from(limit);
        self.table.change_or_make(
            key,
            now,
            || (key.clone(), Bucket::full(limit, now)),
            |bucket| bucket.take(limit, now),
        )
    }

    /// What `take` would say, changing nothing.
    pub fn peek(&self, key: &BucketKey, limit: &RateLimit, now: Timestamp) -> Result<Remaining, Refused> {
        let limit = Limit::from(limit);
        self.table
            .read(key, |bucket| *bucket)
            .unwrap_or(Bucket::full(limit, now))
            .take(limit, now)
    }

    /// Puts a token back that was taken for a request which a narrower limit then refused.
    pub fn give_back(&self, key: &BucketKey) {
        self.table.change(key, None, |bucket| {
            bucket.tokens = (bucket.tokens + 1.0).min(f64::from(bucket.limit.burst));
        });
    }

    /// `None`: there is no such bucket, which is as good as a full one.
    pub fn status(&self, key: &BucketKey) -> Option<BucketStatus> {
        self.table.read(key, status)
    }

    /// Forgets a bucket; the next request finds a full one. `false`: there was none.
    pub fn reset(&self, key: &BucketKey) -> bool {
        self.table.remove(key).is_some()
    }

    /// The tenant's buckets, in no order.
    pub fn list(&self, tenant: &TenantId, limit: usize) -> Vec<(BucketKey, BucketStatus)> {
        let mut found = Vec::new();
        self.table.each(|key, bucket| {
            if found.len() < limit && key.tenant() == Some(tenant) {
                found.push((key.clone(), status(bucket)));
            }
        });
        found
    }

    /// Forgets buckets that were unused for an hour.
    pub fn sweep(&self, now: Timestamp) -> usize {
        self.table.retain(|_, bucket| !bucket.is_idle(now))
    }

    /// Forgets the buckets of tenants that are not to be kept.
    pub(super) fn prune(&self, keep: &mut impl FnMut(&TenantId) -> bool) -> usize {
        self.table.retain(|key, _| key.tenant().is_none_or(&mut *keep))
    }

    /// Number of buckets.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether there is no bucket.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Buckets that a full table has forgotten.
    pub fn evicted(&self) -> u64 {
        self.table.evicted()
    }

    /// Everything, for a later `restore`.
    pub fn records(&self) -> Vec<(BucketKey, BucketRecord)> {
        let mut records = Vec::new();
        self.table.each(|key, bucket| {
            let record = BucketRecord {
                tokens: bucket.tokens,
                last_tick: bucket.last_tick,
                requests_per_second: bucket.limit.per_tick,
                burst: bucket.limit.burst,
                window_seconds: bucket.limit.window_seconds,
            };
            records.push((key.clone(), record));
        });
        records
    }

    /// Takes back what an earlier run had.
    pub fn restore(&self, key: BucketKey, record: BucketRecord, now: Timestamp) {
        let burst = f64::from(record.burst);
        let bucket = Bucket {
            tokens: if record.tokens.is_finite() {
                record.tokens.clamp(0.0, burst)
            } else {
                0.0
            },
            last_tick: record.last_tick.min(now),
            limit: Limit {
                per_tick: record.requests_per_second,
                burst: record.burst,
                window_seconds: record.window_seconds,
            },
        };
        self.table
            .change_or_make(&key.clone(), now, || (key, bucket), |kept| *kept = bucket);
    }
}

fn status(bucket: &Bucket) -> BucketStatus {
    BucketStatus {
        tokens: bucket.tokens,
        limit: bucket.limit.per_tick * f64::from(bucket.limit.window_seconds),
        window_seconds: bucket.limit.window_seconds,
        burst: bucket.limit.burst,
        last_refill: bucket.last_tick.unix_ms,
    }
}

#[cfg(test)]
#[path = "rate_limit_tests.rs"]
mod tests;
