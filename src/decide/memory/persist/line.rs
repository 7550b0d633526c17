//! One entry as the file has it.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::{
    clock::Timestamp,
    decide::memory::{BreakerRecord, BucketKey, BucketRecord, Memory, SessionRecord, State},
    policy::{BreakerSettings, PolicyId, ProviderId, TenantId},
};

/// What a file brought back. Sessions count whether they were still alive or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Loaded {
    /// Sticky sessions.
    pub sessions: usize,
    /// Breakers.
    pub breakers: usize,
    /// Token buckets.
    pub buckets: usize,
}

/// A line of the file, between the header and the checksum.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Line<'a> {
    Session {
        tenant: TenantId,
        #[serde(borrow)]
        key: Cow<'a, str>,
        provider: Cow<'a, str>,
        last_set: u32,
        ttl_seconds: u32,
    },
    Breaker {
        tenant: TenantId,
        provider: Cow<'a, str>,
        state: State,
        /// Unix milliseconds.
        changed_at: u64,
        failure_count: u32,
        success_count: u32,
        half_open_calls: u32,
        #[serde(with = "Settings")]
        settings: BreakerSettings,
    },
    Bucket {
        tenant: Option<TenantId>,
        policy: Option<PolicyId>,
        tokens: f64,
        /// Unix milliseconds.
        last_tick: u64,
        requests_per_second: f64,
        burst: u32,
        window_seconds: u32,
    },
}

/// All of the settings, so that a new one cannot be forgotten here.
#[derive(Serialize, Deserialize)]
#[serde(remote = "BreakerSettings")]
struct Settings {
    enabled: bool,
    failure_threshold: u32,
    success_threshold: u32,
    timeout_ms: u64,
    half_open_max_calls: u32,
    error_rate_threshold: f64,
    error_rate_window_seconds: u32,
    error_rate_min_requests: u32,
    latency_threshold_ms: Option<u64>,
}

impl<'a> Line<'a> {
    pub(super) fn session(record: &'a SessionRecord, ahead_ms: i64) -> Self {
        Self::Session {
            tenant: record.tenant.clone(),
            key: Cow::Borrowed(&record.key),
            provider: Cow::Borrowed(record.provider.as_str()),
            last_set: shifted_seconds(record.last_set, ahead_ms),
            ttl_seconds: record.ttl_seconds,
        }
    }

    pub(super) fn breaker(
        tenant: &TenantId,
        provider: &'a ProviderId,
        record: &BreakerRecord,
        ahead_ms: i64,
    ) -> Self {
        Self::Breaker {
            tenant: tenant.clone(),
            provider: Cow::Borrowed(provider.as_str()),
            state: record.state,
            changed_at: record.changed_at.shifted(ahead_ms).unix_ms,
            failure_count: record.failure_count,
            success_count: record.success_count,
            half_open_calls: record.half_open_calls,
            settings: record.settings,
        }
    }

    pub(super) fn bucket(key: &BucketKey, record: &BucketRecord, ahead_ms: i64) -> Self {
        let (tenant, policy) = match key {
            BucketKey::Global => (None, None),
            BucketKey::Tenant(tenant) => (Some(tenant), None),
            BucketKey::Policy(tenant, policy) => (Some(tenant), Some(policy)),
        };
        Self::Bucket {
            tenant: tenant.cloned(),
            policy: policy.cloned(),
            tokens: record.tokens,
            last_tick: record.last_tick.shifted(ahead_ms).unix_ms,
            requests_per_second: record.requests_per_second,
            burst: record.burst,
            window_seconds: record.window_seconds,
        }
    }

    /// Takes the entry into memory.
    pub(super) fn restore(self, memory: &Memory, (now, ahead_ms): (Timestamp, i64), loaded: &mut Loaded) {
        match self {
            Self::Session {
                tenant,
                key,
                provider,
                last_set,
                ttl_seconds,
            } => {
                let record = SessionRecord {
                    tenant,
                    key: key.into(),
                    provider: ProviderId::new(&provider),
                    last_set: shifted_seconds(last_set, -ahead_ms),
                    ttl_seconds,
                };
                memory.sticky.restore(&record, now);
                loaded.sessions += 1;
            }
            Self::Breaker {
                tenant,
                provider,
                state,
                changed_at,
                failure_count,
                success_count,
                half_open_calls,
                settings,
            } => {
                let record = BreakerRecord {
                    state,
                    changed_at: Timestamp::from_unix_ms(changed_at).shifted(-ahead_ms),
                    settings,
                    failure_count,
                    success_count,
                    half_open_calls,
                };
                memory
                    .breakers
                    .restore(tenant, ProviderId::new(&provider), record, now);
                loaded.breakers += 1;
            }
            Self::Bucket {
                tenant,
                policy,
                tokens,
                last_tick,
                requests_per_second,
                burst,
                window_seconds,
            } => {
                let key = match (tenant, policy) {
                    (Some(tenant), Some(policy)) => BucketKey::Policy(tenant, policy),
                    (Some(tenant), None) => BucketKey::Tenant(tenant),
                    (None, _) => BucketKey::Global,
                };
                let record = BucketRecord {
                    tokens,
                    last_tick: Timestamp::from_unix_ms(last_tick).shifted(-ahead_ms),
                    requests_per_second,
                    burst,
                    window_seconds,
                };
                memory.buckets.restore(key, record, now);
                loaded.buckets += 1;
            }
        }
    }
}

fn shifted_seconds(seconds: u32, by_ms: i64) -> u32 {
    let shifted = i64::from(seconds).saturating_add(by_ms / 1_000);
    u32::try_from(shifted.max(0)).unwrap_or(u32::MAX)
}
