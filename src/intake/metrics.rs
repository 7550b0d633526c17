//! Metrics of breakers, results and memory; those of a tenant's decisions are with its snapshot. Tenants are bounded as elsewhere; providers too, because a result
//! may name any.

use std::{
    collections::{HashMap, HashSet},
    sync::{Mutex, PoisonError},
};

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::{
    decide::memory::{CallResult, State, Transition, Trigger},
    telemetry::registry::{counter, counters, float_gauges, gauge, gauges, histograms},
};

/// Providers that get a label of their own; all further ones share `other`. A tenant gets no more of them than it leaves
/// to the others, since it may name as many providers as it likes.
const PROVIDER_LABELS: usize = 200;

/// The providers with a label of their own.
#[derive(Debug, Default)]
struct ProviderLabels {
    names: HashSet<String>,
    /// By the labels of tenants.
    shares: HashMap<String, usize>,
}

impl ProviderLabels {
    /// Whether the provider has a label, or gets one for this tenant.
    fn has(&mut self, tenant: &str, provider: &str) -> bool {
        if self.names.contains(provider) {
            return true;
        }
        let left = PROVIDER_LABELS.saturating_sub(self.names.len());
        let share = self.shares.get(tenant).copied().unwrap_or(0);
        if share >= left {
            return false;
        }
        self.names.insert(provider.to_owned());
        self.shares.insert(tenant.to_owned(), share + 1);
        true
    }
}

const RESULT_MS: &[f64] = &[
    10.0, 25.0, 50.0, 100.0, 250.0, 500.0, 1000.0, 2500.0, 5000.0, 10_000.0, 30_000.0, 60_000.0, 300_000.0,
];

/// All of them.
#[derive(Debug)]
pub struct IntakeMetrics {
    /// Requests that wait for HEIR or the disk.
    pub waiting_requests: IntGauge,
    /// Bytes of bodies that are counted.
    pub buffered_bytes: IntGauge,
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
    providers: Mutex<ProviderLabels>,
    /// Requests for decisions of tenants that may not request them.
    pub tenants_rejected: IntCounter,
    /// Results that had been counted before.
    pub results_duplicate: IntCounter,
    /// Latencies that results report, in milliseconds.
    pub result_latency_ms: Histogram,
    /// Sticky sessions in memory.
    pub sticky_sessions: IntGauge,
    sticky_evictions: IntCounter,
    bucket_evictions: IntCounter,
}

impl IntakeMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let provider = &["tenant_id", "provider_id"];
        let waiting = gauge(
            r,
            "beamline_sidecar_waiting_requests",
            "Requests that wait for HEIR or the disk.",
        )?;
        Ok(Self {
            waiting_requests: waiting,
            buffered_bytes: gauge(
                r,
                "beamline_sidecar_buffered_bytes",
                "Bytes of request bodies and lists in memory.",
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

    /// The label of a provider; `tenant` is its tenant's label.
    fn provider<'p>(&self, tenant: &str, provider: &'p str) -> &'p str {
        let mut known = self.providers.lock().unwrap_or_else(PoisonError::into_inner);
        if known.has(tenant, provider) {
            provider
        } else {
            "other"
        }
    }

    /// A result that a breaker was told.
    pub fn breaker_event(&self, tenant: &str, provider: &str, result: CallResult) {
        let event = match result {
            CallResult::Success => "success",
            CallResult::Failure => "failure",
        };
        self.breaker_events
            .with_label_values(&[tenant, self.provider(tenant, provider), event])
            .inc();
    }

    /// A request that a breaker refused.
    pub fn fail_fast(&self, tenant: &str, provider: &str) {
        self.breaker_events
            .with_label_values(&[tenant, self.provider(tenant, provider), "fail_fast"])
            .inc();
    }

    /// A breaker that changed; `tenant` is the tenant's label.
    pub fn transition(&self, tenant: &str, transition: &Transition) {
        let provider = self.provider(tenant, transition.provider.as_str());
        let (from, to) = (transition.from.as_str(), transition.to.as_str());
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
        let reason = transition.trigger.as_str();
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

    /// Counts one accepted result by its status.
    pub fn result(&self, status: &str) {
        self.results.with_label_values(&[status]).inc();
    }

    /// Counts one refused result by its reason and the platform's error code.
    pub fn result_refused(&self, reason: &str, error_code: &str) {
        self.results_failed.with_label_values(&[reason, error_code]).inc();
    }

    /// The sizes of the tables, read when metrics are scraped.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_tenant_can_use_up_the_labels_of_providers() {
        let mut labels = ProviderLabels::default();
        for index in 0..1_000 {
            labels.has("flood", &format!("invented-{index}"));
        }
        assert_eq!(labels.names.len(), PROVIDER_LABELS / 2);
        assert!(labels.has("acme", "openai"));
        assert!(labels.has("flood", "openai"), "a label serves every tenant");
        assert!(labels.has("flood", "invented-0") && !labels.has("flood", "invented-999"));
        for tenant in 0..1_000 {
            for index in 0..1_000 {
                labels.has(&format!("t{tenant}"), &format!("{tenant}-{index}"));
            }
        }
        assert_eq!(labels.names.len(), PROVIDER_LABELS);
        assert!(labels.has("acme", "openai"));
    }
}
