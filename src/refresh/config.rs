//! When HEIR is asked, and what age means.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::snapshot::{BrokenPolicies, Guarded, WhenExpired};

/// Keeping the snapshot up to date.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RefreshConfig {
    /// Pause between two polls where HEIR cannot tell of changes by itself; the pause taken is this, give or take
    /// a fifth.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub interval_ms: u64,
    /// How long HEIR may hold a question for changes open.
    #[schemars(range(min = 10, max = 60_000))]
    pub long_poll_timeout_ms: u64,
    /// Age from which answers are marked `stale`. With changes the age of a healthy snapshot goes up to `long_poll_timeout_ms`.
    #[schemars(range(min = 1))]
    pub stale_after_ms: u64,
    /// Age from which answers are marked `expired`, or refused.
    #[schemars(range(min = 1))]
    pub expired_after_ms: u64,
    /// What lookups get once the snapshot has expired.
    pub when_expired: WhenExpired,
    /// An answer of HEIR that removes more than this share of 20 or more policies is held back until HEIR gives it
    /// a second time.
    #[schemars(range(max = 100))]
    pub max_removed_percent: u8,
    /// What decisions are made by where HEIR or a file has a policy that a write would refuse. Lookups get it as it is.
    pub broken_policies: BrokenPolicies,
    /// How long HEIR's word that a policy does not exist is remembered, where policies are fetched one by one.
    #[schemars(range(max = 3_600_000))]
    pub negative_ttl_ms: u64,
    /// Fixes the random part of all pauses; unset: different in every process.
    pub jitter_seed: Option<u64>,
}

impl Default for RefreshConfig {
    fn default() -> Self {
        Self {
            interval_ms: 5_000,
            long_poll_timeout_ms: 4_000,
            stale_after_ms: 30_000,
            expired_after_ms: 86_400_000,
            when_expired: WhenExpired::Serve,
            max_removed_percent: 50,
            broken_policies: BrokenPolicies::LastGood,
            negative_ttl_ms: 5_000,
            jitter_seed: None,
        }
    }
}

impl RefreshConfig {
    /// What the shrink guard allows without an operator.
    pub fn guarded(&self) -> Guarded {
        Guarded {
            max_removed_percent: self.max_removed_percent,
            // The shortest pause between two polls.
            confirm_after: std::time::Duration::from_millis(self.interval_ms / 10 * 8),
            confirmed: false,
        }
    }
}
