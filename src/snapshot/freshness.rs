//! How old an answer is, and what that means.
//!
//! Kept beside the snapshot and not in it: a refresh that finds nothing new makes the snapshot younger without
//! making another one.

use std::{
    sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed},
    time::{Instant, SystemTime},
};

use arc_swap::ArcSwap;
use hashbrown::HashMap;
use http::HeaderValue;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::key::Key;
use crate::{
    clock::wall_time,
    policy::{PolicyId, TenantId},
};

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

/// What a source could not confirm, while it confirmed the rest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unconfirmed {
    /// All policies of a tenant.
    Tenant(TenantId),
    /// One policy.
    Policy(Key),
}

/// When those policies were last confirmed that the rest has left behind, in milliseconds after the start.
#[derive(Debug, Default)]
struct LeftBehind(HashMap<TenantId, TenantLeftBehind>);

#[derive(Debug, Default)]
struct TenantLeftBehind {
    whole: Option<i64>,
    policies: HashMap<PolicyId, i64>,
}

impl LeftBehind {
    fn since(&self, tenant: &str, policy: Option<&str>) -> Option<i64> {
        let tenant = self.0.get(tenant)?;
        let policy = policy.and_then(|policy| tenant.policies.get(policy));
        match (tenant.whole, policy) {
            (Some(whole), Some(policy)) => Some(whole.min(*policy)),
            (whole, policy) => whole.or(policy.copied()),
        }
    }
}

/// The time since the snapshot's source last confirmed it, and the limits that give it a meaning.
#[derive(Debug)]
pub struct Freshness {
    started: Instant,
    /// Milliseconds after `started`; before it if the confirmation is an earlier run's.
    confirmed_ms: AtomicI64,
    confirmed: AtomicBool,
    /// Whether `left_behind` names anything: almost always it does not, and then it is not looked at.
    has_left_behind: AtomicBool,
    left_behind: ArcSwap<LeftBehind>,
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
            has_left_behind: AtomicBool::new(false),
            left_behind: ArcSwap::default(),
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

    /// HEIR has said that the snapshot is what it had at this time, which is when it was asked, but for these parts.
    pub fn confirm(&self, at: Instant, unconfirmed: &[Unconfirmed]) {
        if !unconfirmed.is_empty() || self.has_left_behind.load(Relaxed) {
            self.leave_behind(unconfirmed);
        }
        // A question that was asked earlier may be answered later.
        self.confirmed_ms.fetch_max(self.milliseconds_at(at), Relaxed);
        self.confirmed.store(true, Relaxed);
    }

    /// Notes since when those have not been confirmed, before the rest is.
    fn leave_behind(&self, unconfirmed: &[Unconfirmed]) {
        let before = self.left_behind.load();
        // Without any confirmation so far, the age counts from the start.
        let until_now = self.confirmed_ms.load(Relaxed);
        let mut next = LeftBehind::default();
        for part in unconfirmed {
            match part {
                Unconfirmed::Tenant(tenant) => {
                    let since = before.since(tenant.as_str(), None).unwrap_or(until_now);
                    next.0.entry(tenant.clone()).or_default().whole = Some(since);
                }
                Unconfirmed::Policy((tenant, policy)) => {
                    let since = before.since(tenant.as_str(), Some(policy.as_str()));
                    let tenant = next.0.entry(tenant.clone()).or_default();
                    tenant.policies.insert(policy.clone(), since.unwrap_or(until_now));
                }
            }
        }
        self.has_left_behind.store(!next.0.is_empty(), Relaxed);
        self.left_behind.store(next.into());
    }

    /// The snapshot was last confirmed by an earlier run, at this time of the system's clock. A time that is still to
    /// come says nothing, and an unknown age is stale.
    pub fn confirmed_earlier(&self, at: SystemTime) {
        let Ok(age) = wall_time().duration_since(at) else {
            return;
        };
        let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
        let at_ms = self.milliseconds_at(Instant::now()).saturating_sub(age_ms);
        self.confirmed_ms.store(at_ms, Relaxed);
        self.confirmed.store(true, Relaxed);
    }

    fn milliseconds_at(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }

    /// Milliseconds since the last confirmation, or since the start where there was none, and what that means.
    pub fn at(&self, now: Instant) -> (u64, Age) {
        self.since(now, self.confirmed_ms.load(Relaxed))
    }

    /// As [`at`](Self::at), for one policy.
    pub fn of_policy(&self, now: Instant, tenant: &str, policy: &str) -> (u64, Age) {
        self.of_part(now, tenant, Some(policy))
    }

    /// As [`at`](Self::at), for all policies of a tenant.
    pub fn of_tenant(&self, now: Instant, tenant: &str) -> (u64, Age) {
        self.of_part(now, tenant, None)
    }

    fn of_part(&self, now: Instant, tenant: &str, policy: Option<&str>) -> (u64, Age) {
        if self.has_left_behind.load(Relaxed)
            && let Some(since) = self.left_behind.load().since(tenant, policy)
        {
            return self.since(now, since);
        }
        self.at(now)
    }

    fn since(&self, now: Instant, confirmed_ms: i64) -> (u64, Age) {
        if self.authoritative.load(Relaxed) {
            return (0, Age::Fresh);
        }
        let age_ms = self
            .milliseconds_at(now)
            .saturating_sub(confirmed_ms)
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
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_age_has_one_meaning() {
        let start = Instant::now();
        let freshness = Freshness::new(start);
        freshness.set_limits(1_000, 5_000, WhenExpired::Refuse);
        assert_eq!(freshness.at(start), (0, Age::Stale), "never confirmed");
        freshness.confirm(start, &[]);
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
    fn an_earlier_run_counts_and_a_time_to_come_is_no_age() {
        let freshness = Freshness::new(Instant::now());
        freshness.set_limits(60_000, 600_000, WhenExpired::Serve);
        freshness.confirmed_earlier(SystemTime::now() + Duration::from_secs(3_600));
        assert_eq!(freshness.at(Instant::now()).1, Age::Stale);
        freshness.confirmed_earlier(SystemTime::now() - Duration::from_secs(120));
        let (age, meaning) = freshness.at(Instant::now());
        assert!((120_000..130_000).contains(&age) && meaning == Age::Stale);
    }

    #[test]
    fn what_is_not_confirmed_ages_alone() {
        let start = Instant::now();
        let freshness = Freshness::new(start);
        freshness.set_limits(1_000, 5_000, WhenExpired::Serve);
        let tenant = |name: &str| TenantId::parse(name).unwrap();
        let key = (tenant("a"), PolicyId::parse("p").unwrap());
        let at = |ms| start + Duration::from_millis(ms);
        freshness.confirm(at(100), &[]);
        let unconfirmed = [Unconfirmed::Policy(key), Unconfirmed::Tenant(tenant("b"))];
        freshness.confirm(at(500), &unconfirmed);
        freshness.confirm(at(900), &unconfirmed);
        let now = at(1_200);
        assert_eq!(freshness.at(now), (300, Age::Fresh));
        assert_eq!(freshness.of_policy(now, "a", "p"), (1_100, Age::Stale));
        assert_eq!(freshness.of_policy(now, "a", "q"), (300, Age::Fresh));
        assert_eq!(freshness.of_policy(now, "b", "any"), (1_100, Age::Stale));
        assert_eq!(freshness.of_tenant(now, "b"), (1_100, Age::Stale));
        freshness.confirm(at(1_100), &[]);
        assert_eq!(freshness.of_policy(now, "a", "p"), (100, Age::Fresh));
        freshness.confirm(at(1_000), &[]);
        assert_eq!(
            freshness.at(now),
            (100, Age::Fresh),
            "an older question answered later"
        );
    }
}
