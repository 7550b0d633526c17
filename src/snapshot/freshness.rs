//! How old an answer is, and what that means.
//!
//! Kept beside the snapshot and not in it: a refresh that finds nothing new makes the snapshot younger without
//! making another one.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    time::{Duration, Instant, SystemTime},
};

use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What lookups are answered with once the snapshot has expired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenExpired {
    /// With the policy, marked `expired`.
    Serve,
    /// With 503 `policy_expired`.
    Refuse,
}

/// What an age means, as `x-beamline-freshness` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Freshness")]
pub enum Age {
    /// Confirmed a short while ago.
    Fresh,
    /// Not confirmed for longer than `refresh.stale_after_ms`, or never.
    Stale,
    /// Not confirmed for longer than `refresh.expired_after_ms`.
    Expired,
}

impl Age {
    /// The value of the header, as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Fresh => "fresh",
            Self::Stale => "stale",
            Self::Expired => "expired",
        }
    }

    /// The value of the header.
    pub const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

/// The time since the snapshot's source last confirmed it, and the limits that give it a meaning.
#[derive(Debug)]
pub struct Freshness {
    started: Instant,
    /// Milliseconds after `started`; before it if the confirmation is an earlier run's.
    confirmed_ms: AtomicI64,
    confirmed: AtomicBool,
    stale_after_ms: AtomicU64,
    expired_after_ms: AtomicU64,
    refuse_expired: AtomicBool,
    /// There is no source that could be ahead of the snapshot.
    authoritative: AtomicBool,
}

impl Freshness {
    /// Never confirmed; ages are counted from `started`.
    pub fn new(started: Instant) -> Self {
        Self {
            started,
            confirmed_ms: AtomicI64::new(0),
            confirmed: AtomicBool::new(false),
            stale_after_ms: AtomicU64::new(u64::MAX),
            expired_after_ms: AtomicU64::new(u64::MAX),
            refuse_expired: AtomicBool::new(false),
            authoritative: AtomicBool::new(false),
        }
    }

    /// Sets the limits, also while requests are served.
    pub fn set_limits(&self, stale_after_ms: u64, expired_after_ms: u64, when_expired: WhenExpired) {
        self.stale_after_ms.store(stale_after_ms, Relaxed);
        self.expired_after_ms.store(expired_after_ms, Relaxed);
        self.refuse_expired
            .store(when_expired == WhenExpired::Refuse, Relaxed);
    }

    /// There is no HEIR: what is in memory is the truth and always fresh.
    pub fn set_authoritative(&self) {
        self.authoritative.store(true, Relaxed);
    }

    /// HEIR has just said that the snapshot is what it has.
    pub fn confirm(&self) {
        self.confirm_at(self.milliseconds_at(Instant::now()));
    }

    /// The snapshot was last confirmed by an earlier run, at this time of the system's clock. A clock that went
    /// back since then makes it no younger than now.
    pub fn confirmed_earlier(&self, at: SystemTime) {
        let age = SystemTime::now().duration_since(at).unwrap_or(Duration::ZERO);
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        self.confirm_at(self.milliseconds_at(Instant::now()).saturating_sub(age_ms));
    }

    fn confirm_at(&self, at_ms: i64) {
        self.confirmed_ms.store(at_ms, Relaxed);
        self.confirmed.store(true, Relaxed);
    }

    fn milliseconds_at(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }

    /// Milliseconds since the last confirmation, or since the start where there was none, and what that means.
    pub fn at(&self, now: Instant) -> (u64, Age) {
        if self.authoritative.load(Relaxed) {
            return (0, Age::Fresh);
        }
        let age_ms = self
            .milliseconds_at(now)
            .saturating_sub(self.confirmed_ms.load(Relaxed))
            .max(0)
            .unsigned_abs();
        let age = if age_ms >= self.expired_after_ms.load(Relaxed) {
            Age::Expired
        } else if age_ms >= self.stale_after_ms.load(Relaxed) || !self.confirmed.load(Relaxed) {
            Age::Stale
        } else {
            Age::Fresh
        };
        (age_ms, age)
    }

    /// Whether lookups of this age are refused.
    pub fn refuses(&self, age: Age) -> bool {
        age == Age::Expired && self.refuse_expired.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_age_has_one_meaning() {
        let start = Instant::now();
        let freshness = Freshness::new(start);
        freshness.set_limits(1_000, 5_000, WhenExpired::Refuse);
        assert_eq!(freshness.at(start), (0, Age::Stale), "never confirmed");
        freshness.confirm_at(0);
        let at = |ms| freshness.at(start + Duration::from_millis(ms));
        assert_eq!(at(0), (0, Age::Fresh));
        assert_eq!(at(999), (999, Age::Fresh));
        assert_eq!(at(1_000), (1_000, Age::Stale));
        assert_eq!(at(5_000), (5_000, Age::Expired));
        assert!(freshness.refuses(Age::Expired) && !freshness.refuses(Age::Stale));
        freshness.set_limits(1_000, 5_000, WhenExpired::Serve);
        assert!(!freshness.refuses(Age::Expired));
    }

    #[test]
    fn an_earlier_run_counts_and_a_clock_that_went_back_does_not() {
        let freshness = Freshness::new(Instant::now());
        freshness.set_limits(60_000, 600_000, WhenExpired::Serve);
        freshness.confirmed_earlier(SystemTime::now() - Duration::from_secs(120));
        let (age, meaning) = freshness.at(Instant::now());
        assert!((120_000..130_000).contains(&age) && meaning == Age::Stale);
        freshness.confirmed_earlier(SystemTime::now() + Duration::from_secs(3_600));
        assert_eq!(freshness.at(Instant::now()).1, Age::Fresh);
    }
}
