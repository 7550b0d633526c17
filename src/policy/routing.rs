//! The valid policy, from which decisions are made. Only [`read`](super::read) creates one.
//!
//! A policy of a refresh is read leniently, so every JSON object gives one of these; parts that were skipped are
//! reported as problems beside it. Field names and rules: the platform's policy language.

use std::{fmt, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{Condition, InvalidId};

/// Longest provider name in bytes.
pub const MAX_PROVIDER_BYTES: usize = 255;

/// A provider's name. On write `^[A-Za-z0-9_.:/-]{1,255}$`; a stored name may be any text that is not empty.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, schemars::JsonSchema)]
#[serde(transparent)]
pub struct ProviderId(Arc<str>);

impl ProviderId {
    /// Accepts a name as it is in a stored document or a request.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// Checks a name against the grammar for new documents.
    pub fn check(text: &str) -> Result<(), InvalidId> {
        if text.is_empty() {
            return Err(InvalidId::Empty);
        }
        if text.len() > MAX_PROVIDER_BYTES {
            return Err(InvalidId::TooLong);
        }
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b':' | b'/' | b'-');
        if text.bytes().all(plain) {
            Ok(())
        } else {
            Err(InvalidId::Character)
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::borrow::Borrow<str> for ProviderId {
    fn borrow(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ProviderId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A policy, normalised: all forms of the language become one.
#[derive(Debug, Clone, PartialEq)]
pub struct RoutingPolicy {
    /// `MAJOR.MINOR`, a label; `"1.0"` if the document has none.
    pub version: Box<str>,
    /// In ascending byte order of the names, each once. Weights are fractions and are never normalised.
    pub providers: Box<[Provider]>,
    /// In the order of the document. A legacy `fallback` without `fallbacks` is one rule here.
    pub fallbacks: Box<[FallbackRule]>,
    /// Provider of a legacy `fallback` object: the last resort, whatever its conditions.
    pub last_resort: Option<ProviderId>,
    /// Session affinity.
    pub sticky: Option<Box<Sticky>>,
    /// Settings of the breakers of its providers.
    pub circuit_breaker: Option<Box<BreakerSettings>>,
    /// The policy's rate limit; `None` unless the document enables it.
    pub rate_limit: Option<Box<RateLimit>>,
    /// Its extensions; `None` where it has none.
    pub pipeline: Option<Box<Pipeline>>,
    /// Milliseconds that one attempt at a provider may take, 1–300 000; a provider's own setting wins.
    pub timeout_ms: Option<u32>,
    /// Active checks of its providers that have none of their own.
    pub health_check: Option<Box<HealthCheck>>,
    /// How detailed explanations are; `None`: as configured.
    pub detail_level: Option<DetailLevel>,
    /// `metadata`, `defaults`, `escalate_on`: kept for readers of the policy, never used for routing.
    pub deprecated: Option<Box<Deprecated>>,
}

/// One provider of the weighted set.
#[derive(Debug, Clone, PartialEq)]
pub struct Provider {
    /// Its name.
    pub id: ProviderId,
    /// A fraction, usually 0.0–1.0; a stored document may hold anything finite.
    pub weight: f64,
    /// Milliseconds that one attempt may take, 1–300 000.
    pub timeout_ms: Option<u32>,
    /// This provider's own active checks.
    pub health_check: Option<Box<HealthCheck>>,
}

/// One rule of `fallbacks`.
#[derive(Debug, Clone, PartialEq)]
pub struct FallbackRule {
    /// The index in decimal, `-`, and the first eight hex digits of SHA-256 over the rule's canonical JSON.
    pub id: Box<str>,
    /// When the rule applies.
    pub when: Condition,
    /// Attempts on the provider that failed before `to` is taken; below zero counts as zero.
    pub retry: i64,
    /// How long the caller waits before a retry; `None`: not at all.
    pub backoff: Option<Backoff>,
    /// `None`: the rule only retries; after that the next rule applies.
    pub to: Option<ProviderId>,
}

/// How long the caller waits before a retry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Backoff {
    /// How the wait grows.
    pub strategy: Strategy,
    /// Milliseconds before the first retry.
    pub base_ms: u64,
    /// No wait is longer, in milliseconds.
    pub max_ms: u64,
    /// Whether up to a tenth is added by chance.
    pub jitter: bool,
}

/// How a wait grows with the attempts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Strategy {
    /// It doubles with each attempt.
    Exponential,
    /// It grows by the first wait with each attempt.
    Linear,
    /// It stays the same.
    Fixed,
}

/// Session affinity.
#[derive(Debug, Clone, PartialEq)]
pub struct Sticky {
    /// Only `true` activates it.
    pub enabled: bool,
    /// Name of the context key whose value names the session.
    pub session_key: Box<str>,
    /// The `ttl` text as it was given, for explanations.
    pub ttl: Option<Box<str>>,
    /// At or below zero no session is ever reused.
    pub ttl_seconds: i64,
}

/// Settings of a provider's breaker, clamped to their ranges. Ranges and defaults: policy language, `circuit_breaker`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct BreakerSettings {
    /// Whether the breaker has an effect.
    pub enabled: bool,
    /// 1–100 failures in a row.
    pub failure_threshold: u32,
    /// 1–10 successes that close a half-open breaker.
    pub success_threshold: u32,
    /// Milliseconds from open to half open, 1 000–300 000.
    pub timeout_ms: u64,
    /// Calls that a half-open breaker admits, 1–100.
    pub half_open_max_calls: u32,
    /// Share of failures in the window, 0–1; above 1 the rate has no effect.
    pub error_rate_threshold: f64,
    /// Length of the window, 1–3 600.
    pub error_rate_window_seconds: u32,
    /// Results in the window before the rate counts.
    pub error_rate_min_requests: u32,
    /// `None`: latency opens no breaker.
    pub latency_threshold_ms: Option<u64>,
}

impl Default for BreakerSettings {
    /// The meaning of an object without keys. (A provider without the settings of any policy has a latency limit too.)
    fn default() -> Self {
        Self {
            enabled: false,
            failure_threshold: 5,
            success_threshold: 2,
            timeout_ms: 60_000,
            half_open_max_calls: 3,
            error_rate_threshold: 0.5,
            error_rate_window_seconds: 60,
            error_rate_min_requests: 5,
            latency_threshold_ms: None,
        }
    }
}

impl BreakerSettings {
    /// The settings of a provider whose result arrives before any policy has chosen it.
    pub fn built_in() -> Self {
        Self {
            latency_threshold_ms: Some(5_000),
            ..Self::default()
        }
    }
}

/// A policy's own token bucket, each value clamped to 1–1 000 000.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateLimit {
    /// Which requests share the bucket.
    pub scope: LimitScope,
    /// Tokens that come back per second. `limit` per `window_seconds` is the same as `limit / window_seconds`.
    pub requests_per_second: f64,
    /// Tokens that the bucket holds.
    pub burst: u32,
    /// 1 unless the document has `window_seconds`; reported with a refusal.
    pub window_seconds: u32,
}

/// Which requests share a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum LimitScope {
    /// The requests of one policy.
    Policy,
    /// The requests of one tenant.
    Tenant,
    /// All requests of the process.
    Global,
}

impl LimitScope {
    /// The name in documents and metrics.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Policy => "policy",
            Self::Tenant => "tenant",
            Self::Global => "global",
        }
    }
}

/// The extensions around the selection, in the order of the document.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Pipeline {
    /// Before the selection: they may change the message.
    pub pre: Box<[Processor]>,
    /// Before the selection: they may refuse the request.
    pub validators: Box<[Validator]>,
    /// The sidecar's own: they weigh the providers before one is drawn.
    pub scorers: Box<[Processor]>,
    /// After the selection: they add metadata.
    pub post: Box<[Processor]>,
}

/// The common part of the items of all lists. Without an `id` an item is never run, but counts for the limits.
#[derive(Debug, Clone, PartialEq)]
pub struct Item {
    /// The id in the registry.
    pub id: Option<Box<str>>,
    /// When the item runs; `None`: always.
    pub when: Option<Condition>,
    /// Overrides the registry record's configuration key by key.
    pub config: Map<String, Value>,
    /// Overrides the registry record's.
    pub timeout_ms: Option<u32>,
    /// Overrides the registry record's: further attempts after a time-out.
    pub retry: Option<u32>,
}

/// One item of `pre` or `post`.
#[derive(Debug, Clone, PartialEq)]
pub struct Processor {
    /// The common part.
    pub item: Item,
    /// What its failure means.
    pub mode: Mode,
}

/// One item of `validators`.
#[derive(Debug, Clone, PartialEq)]
pub struct Validator {
    /// The common part.
    pub item: Item,
    /// What its rejection or failure means.
    pub on_fail: OnFail,
}

/// What a failed processor means. An unknown text counts as optional.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// The request fails with it.
    Required,
    /// The decision goes on without it.
    Optional,
}

/// What a failed or rejecting validator means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFail {
    /// The request is refused.
    Block,
    /// The decision goes on, with a warning in the log.
    Warn,
    /// The decision goes on.
    Ignore,
    /// An unknown text: blocks, and says why.
    Unknown,
}

/// Active checks of a provider, in either of the two forms of the language.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthCheck {
    /// Only `true` activates it.
    pub enabled: bool,
    /// The address to check. Without one, the process's configuration may name the provider's address.
    pub url: Option<Box<str>>,
    /// Milliseconds between two checks, 1 000–60 000.
    pub interval_ms: u32,
    /// Milliseconds that a check may take, 100–30 000.
    pub timeout_ms: u32,
    /// Failures in a row that make a provider unhealthy; `failure_threshold` is the same.
    pub unhealthy_threshold: u32,
    /// Successes in a row that make it healthy again.
    pub healthy_threshold: u32,
}

/// How detailed an explanation is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum DetailLevel {
    /// The provider and the reason.
    Minimal,
    /// The steps as well.
    Detailed,
    /// The steps and the evidence.
    Verbose,
}

impl DetailLevel {
    /// The level of this name.
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "minimal" => Some(Self::Minimal),
            "detailed" => Some(Self::Detailed),
            "verbose" => Some(Self::Verbose),
            _ => None,
        }
    }
}

/// Fields that are parsed and kept, and never used for routing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Deprecated {
    /// The field `metadata`.
    pub metadata: Map<String, Value>,
    /// The field `defaults`.
    pub defaults: Map<String, Value>,
    /// The field `escalate_on`.
    pub escalate_on: Vec<Value>,
}

impl RoutingPolicy {
    /// Sum of the weights, as they are.
    pub fn total_weight(&self) -> f64 {
        // An empty sum is minus zero, and would be shown as such.
        self.providers.iter().map(|provider| provider.weight).sum::<f64>() + 0.0
    }

    /// The weighted provider of this name.
    pub fn provider(&self, id: &str) -> Option<&Provider> {
        let found = self
            .providers
            .binary_search_by(|provider| provider.id.as_str().cmp(id));
        found.ok().and_then(|index| self.providers.get(index))
    }

    /// Whether providers with an open breaker are left out.
    pub fn has_breakers(&self) -> bool {
        self.circuit_breaker
            .as_deref()
            .is_some_and(|settings| settings.enabled)
    }

    /// Whether providers that failed their checks are left out: with breakers, or with checks of the policy's own.
    pub fn excludes_unhealthy(&self) -> bool {
        let enabled = |check: &Option<Box<HealthCheck>>| check.as_ref().is_some_and(|check| check.enabled);
        self.has_breakers()
            || enabled(&self.health_check)
            || self
                .providers
                .iter()
                .any(|provider| enabled(&provider.health_check))
    }

    /// The provider's own timeout, else the policy's.
    pub fn timeout_ms(&self, provider: &str) -> Option<u32> {
        self.provider(provider)
            .and_then(|p| p.timeout_ms)
            .or(self.timeout_ms)
    }
}

impl RateLimit {
    /// Requests per window, as in the document.
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "both factors are clamped to 1..=1 000 000 when read, and the cast saturates"
    )]
    pub fn per_window(&self) -> u64 {
        (self.requests_per_second * f64::from(self.window_seconds)).round() as u64
    }
}
