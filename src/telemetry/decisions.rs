//! Metrics of decisions, breakers, limits and results. Tenants are bounded as elsewhere; providers too, because a result
//! may name any.

use std::{
    collections::HashSet,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use prometheus::{Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use super::metrics::{counter, counters, float_gauges, gauge, gauges, histograms};
use crate::decide::memory::{CallResult, State, Transition, Trigger};

/// Providers that get a label of their own; all further ones share `other`.
const PROVIDER_LABELS: usize = 200;

const DECISION_MS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 50.0, 500.0, 5000.0,
];
const RESULT_MS: &[f64] = &[
    10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0, 60_000.0, 300_000.0,
];

/// The reasons of decisions, as labels; `error` is for those that were refused.
pub const REASONS: [&str; 6] = [
    "sticky",
    "weighted",
    "retry",
    "fallback",
    "circuit_breaker_fallback",
    "error",
];

/// All of them.
#[derive(Debug)]
pub struct DecisionMetrics {
    decisions: IntCounterVec,
    latency_ms: HistogramVec,
    sticky_hits: IntCounterVec,
    sticky_misses: IntCounterVec,
    fallbacks: IntCounterVec,
    limits_allowed: IntCounterVec,
    limits_exceeded: IntCounterVec,
    breaker_events: IntCounterVec,
    breaker_state: IntGaugeVec,
    breaker_transitions: IntCounterVec,
    breaker_trigger: IntGaugeVec,
    breaker_error_rate: prometheus::GaugeVec,
    breaker_window_requests: IntCounterVec,
    breaker_window_failures: IntCounterVec,
    breaker_timeout_transitions: IntCounterVec,
    breaker_timeout_remaining_ms: IntGaugeVec,
    results: IntCounterVec,
    results_failed: IntCounterVec,
    providers: Mutex<HashSet<String>>,
    pub tenants_rejected: IntCounter,
    pub results_duplicate: IntCounter,
    pub result_latency_ms: Histogram,
    pub sticky_sessions: IntGauge,
    sticky_evictions: IntCounter,
    bucket_evictions: IntCounter,
}

impl DecisionMetrics {
    pub(super) fn new(r: &Registry) -> Result<Self, prometheus::Error> {
        let tenant = &["tenant_id"];
        let scoped = &["scope", "tenant_id"];
        let provider = &["tenant_id", "provider_id"];
        Ok(Self {
            decisions: counters(
                r,
                "router_policy_decisions_total",
                "Decisions by what they were made by; refusals are not among them.",
                &["tenant_id", "reason"],
            )?,
            latency_ms: histograms(
                r,
                "router_policy_decision_latency_ms",
                "Time from the request's complete body to the finished answer of a decision, in milliseconds.",
                &["tenant_id", "reason"],
                DECISION_MS,
            )?,
            sticky_hits: counters(r, "router_sticky_hits_total", "Sessions that were known.", tenant)?,
            sticky_misses: counters(
                r,
                "router_sticky_miss_total",
                "Sessions that were not known, where the policy has sticky sessions.",
                tenant,
            )?,
            fallbacks: counters(
                r,
                "router_fallback_activation_total",
                "Decisions that went to a fallback.",
                tenant,
            )?,
            limits_allowed: counters(
                r,
                "router_rate_limit_allowed_total",
                "Requests that a limit let pass, by the narrowest that applied.",
                scoped,
            )?,
            limits_exceeded: counters(
                r,
                "router_rate_limit_exceeded_total",
                "Requests that a limit refused.",
                scoped,
            )?,
            breaker_events: counters(
                r,
                "router_circuit_breaker_events_total",
                "Results that breakers were told, and requests they refused.",
                &["tenant_id", "provider_id", "event_type"],
            )?,
            breaker_state: gauges(
                r,
                "router_circuit_breaker_state",
                "State of a breaker that has ever changed: 0 closed, 1 open, 2 half open.",
                &["tenant_id", "provider_id", "state"],
            )?,
            breaker_transitions: counters(
                r,
                "router_circuit_breaker_state_transitions_total",
                "Changes of breakers; `state` is the same as `to`.",
                &["tenant_id", "provider_id", "from", "to", "state"],
            )?,
            breaker_trigger: gauges(
                r,
                "router_circuit_breaker_trigger_reason",
                "1 for every reason that a breaker has changed for.",
                &["tenant_id", "provider_id", "reason"],
            )?,
            breaker_error_rate: float_gauges(
                r,
                "router_circuit_breaker_error_rate",
                "Share of failures in a breaker's window when it last changed.",
                provider,
            )?,
            breaker_window_requests: counters(
                r,
                "router_circuit_breaker_window_requests_total",
                "Results in the window of a breaker, added up over its changes.",
                provider,
            )?,
            breaker_window_failures: counters(
                r,
                "router_circuit_breaker_window_failures_total",
                "Failures in the window of a breaker, added up over its changes.",
                provider,
            )?,
            breaker_timeout_transitions: counters(
                r,
                "router_circuit_breaker_timeout_transitions_total",
                "Changes for which nothing but time had to pass.",
                &["tenant_id", "provider_id", "transition_type"],
            )?,
            breaker_timeout_remaining_ms: gauges(
                r,
                "router_circuit_breaker_timeout_remaining_ms",
                "Time that a breaker had to stay open when it last changed, in milliseconds.",
                provider,
            )?,
            results: counters(
                r,
                "router_results_total",
                "Results taken in, by status.",
                &["status"],
            )?,
            results_failed: counters(
                r,
                "router_results_validation_failed_total",
                "Results that were refused.",
                &["reason", "error_code"],
            )?,
            providers: Mutex::default(),
            tenants_rejected: counter(
                r,
                "router_decide_tenant_rejected_total",
                "Requests for decisions of tenants that may not ask.",
            )?,
            results_duplicate: counter(
                r,
                "router_results_duplicate_total",
                "Results that had been taken in before.",
            )?,
            result_latency_ms: histograms(
                r,
                "router_result_latency_ms",
                "What results say that their calls took, in milliseconds.",
                &[],
                RESULT_MS,
            )?
            .with_label_values::<&str>(&[]),
            sticky_sessions: gauge(
                r,
                "beamline_sidecar_sticky_sessions",
                "Sticky sessions in memory; the most is decide.max_sticky_sessions.",
            )?,
            sticky_evictions: counter(
                r,
                "beamline_sidecar_sticky_evictions_total",
                "Sticky sessions forgotten for lack of room.",
            )?,
            bucket_evictions: counter(
                r,
                "beamline_sidecar_rate_limit_evictions_total",
                "Token buckets forgotten for lack of room.",
            )?,
        })
    }

    pub(super) fn tenant(self: &Arc<Self>, label: &str) -> TenantDecisions {
        TenantDecisions {
            all: self.clone(),
            label: label.into(),
            by_reason: Default::default(),
            sticky: Default::default(),
        }
    }

    /// The label of a provider.
    fn provider<'p>(&self, provider: &'p str) -> &'p str {
        let mut known = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        if known.contains(provider) {
            return provider;
        }
        if known.len() >= PROVIDER_LABELS {
            return "other";
        }
        known.insert(provider.to_owned());
        provider
    }

    /// A result that a breaker was told.
    pub fn breaker_event(&self, tenant: &str, provider: &str, result: CallResult) {
        let event = match result {
            CallResult::Success => "success",
            CallResult::Failure => "failure",
        };
        self.breaker_events
            .with_label_values(&[tenant, self.provider(provider), event])
            .inc();
    }

    /// A request that a breaker refused.
    pub fn fail_fast(&self, tenant: &str, provider: &str) {
        self.breaker_events
            .with_label_values(&[tenant, self.provider(provider), "fail_fast"])
            .inc();
    }

    /// A breaker that changed; `tenant` is the tenant's label.
    pub fn transition(&self, tenant: &str, transition: &Transition) {
        let provider = self.provider(transition.provider.as_str());
        let (from, to) = (state(transition.from), state(transition.to));
        let both = &[tenant, provider];
        self.breaker_transitions
            .with_label_values(&[tenant, provider, from, to, to])
            .inc();
        for (name, value) in [("closed", 0), ("open", 1), ("half_open", 2)] {
            let labels = &[tenant, provider, name];
            if name == to {
                self.breaker_state.with_label_values(labels).set(value);
            } else {
                // It may never have been there.
                let _absent = self.breaker_state.remove_label_values(labels);
            }
        }
        let reason = trigger(transition.trigger);
        self.breaker_trigger
            .with_label_values(&[tenant, provider, reason])
            .set(1);
        self.breaker_error_rate
            .with_label_values(both)
            .set(transition.error_rate);
        self.breaker_window_requests
            .with_label_values(both)
            .inc_by(transition.window_total.into());
        self.breaker_window_failures
            .with_label_values(both)
            .inc_by(transition.window_failures.into());
        if transition.trigger == Trigger::TimeoutElapsed {
            self.breaker_timeout_transitions
                .with_label_values(&[tenant, provider, "open_to_half_open"])
                .inc();
        }
        let remaining = if transition.to == State::Open {
            transition.settings.timeout_ms
        } else {
            0
        };
        let gauge = self.breaker_timeout_remaining_ms.with_label_values(both);
        gauge.set(i64::try_from(remaining).unwrap_or(i64::MAX));
    }

    pub fn result(&self, status: &str) {
        self.results.with_label_values(&[status]).inc();
    }

    pub fn result_refused(&self, reason: &str, error_code: &str) {
        self.results_failed.with_label_values(&[reason, error_code]).inc();
    }

    /// What the tables say of themselves, read when somebody asks.
    pub fn memory(&self, sessions: usize, evicted_sessions: u64, evicted_buckets: u64) {
        self.sticky_sessions
            .set(i64::try_from(sessions).unwrap_or(i64::MAX));
        for (counter, now) in [
            (&self.sticky_evictions, evicted_sessions),
            (&self.bucket_evictions, evicted_buckets),
        ] {
            counter.inc_by(now.saturating_sub(counter.get()));
        }
    }
}

/// A breaker's state as labels and log lines have it.
pub const fn state(state: State) -> &'static str {
    match state {
        State::Closed => "closed",
        State::Open => "open",
        State::HalfOpen => "half_open",
    }
}

/// A trigger as labels and log lines have it.
pub const fn trigger(trigger: Trigger) -> &'static str {
    match trigger {
        Trigger::LatencyThresholdExceeded => "latency_threshold_exceeded",
        Trigger::FailureThresholdExceeded => "failure_threshold_exceeded",
        Trigger::ErrorRateThresholdExceeded => "error_rate_threshold_exceeded",
        Trigger::HalfOpenFailure => "half_open_failure",
        Trigger::TimeoutElapsed => "timeout_elapsed",
        Trigger::SuccessThresholdMet => "success_threshold_met",
    }
}

/// The counters that a tenant's decisions touch, each found once.
#[derive(Debug)]
pub struct TenantDecisions {
    all: Arc<DecisionMetrics>,
    label: Box<str>,
    /// A refusal is timed and not counted: the errors have a counter of their own.
    by_reason: [OnceLock<(Option<IntCounter>, Histogram)>; REASONS.len()],
    sticky: [OnceLock<IntCounter>; 2],
}

impl TenantDecisions {
    /// The tenant's label.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// A decision that was made, or refused for the reason `error`.
    pub fn decided(&self, reason: &'static str, milliseconds: f64) {
        let Some(index) = REASONS.iter().position(|known| *known == reason) else {
            return;
        };
        let labels = &[&*self.label, reason];
        let (count, latency) = self.by_reason[index].get_or_init(|| {
            let count = (reason != "error").then(|| self.all.decisions.with_label_values(labels));
            (count, self.all.latency_ms.with_label_values(labels))
        });
        latency.observe(milliseconds);
        if let Some(count) = count {
            count.inc();
        }
        if matches!(reason, "fallback" | "circuit_breaker_fallback") {
            self.all.fallbacks.with_label_values(&[&self.label]).inc();
        }
    }

    /// A session that was looked for.
    pub fn session(&self, hit: bool) {
        let vec = if hit {
            &self.all.sticky_hits
        } else {
            &self.all.sticky_misses
        };
        self.sticky[usize::from(hit)]
            .get_or_init(|| vec.with_label_values(&[&self.label]))
            .inc();
    }

    /// A request that met a limit of this scope.
    pub fn limited(&self, scope: &str, allowed: bool) {
        let vec = if allowed {
            &self.all.limits_allowed
        } else {
            &self.all.limits_exceeded
        };
        vec.with_label_values(&[scope, &self.label]).inc();
    }
}
