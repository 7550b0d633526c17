//! Metrics of the snapshot, and those that have a tenant: found once per tenant when its snapshot is built, so that a
//! request touches counters and no table of them.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, OnceLock, PoisonError},
};

use prometheus::{Gauge, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, Registry};

use crate::{
    policy::TenantId,
    telemetry::registry::{MEMORY_MS, counters, float_gauge, gauge, histograms},
};

/// The reasons of decisions, as labels; `error` is for those that were refused.
const REASONS: [&str; 6] = [
    "sticky",
    "weighted",
    "retry",
    "fallback",
    "circuit_breaker_fallback",
    "error",
];

/// The families with a tenant.
#[derive(Debug)]
struct Families {
    hits: IntCounterVec,
    misses: IntCounterVec,
    lookup_latency_ms: HistogramVec,
    decisions: IntCounterVec,
    decision_latency_ms: HistogramVec,
    sticky_hits: IntCounterVec,
    sticky_misses: IntCounterVec,
    fallbacks: IntCounterVec,
    limits_allowed: IntCounterVec,
    limits_exceeded: IntCounterVec,
}

/// Metrics of the snapshot and of its tenants.
#[derive(Debug)]
pub struct SnapshotMetrics {
    /// Policies in memory.
    pub store_size: IntGauge,
    /// Bytes of the policies' documents.
    pub store_memory_bytes: IntGauge,
    /// Time since the snapshot was confirmed.
    pub age_seconds: Gauge,
    /// HEIR's revision; -1: none.
    pub revision: IntGauge,
    /// Policies that could not be taken.
    pub problems: IntGauge,
    /// Policies that a write would be refused or warned for.
    pub policy_warnings: IntGauge,
    policy_loads: IntCounterVec,
    families: Arc<Families>,
    max_tenant_labels: usize,
    tenants: Mutex<HashMap<TenantId, Arc<TenantMetrics>>>,
    other: Arc<TenantMetrics>,
}

impl SnapshotMetrics {
    /// Registers the families. The first `max_tenant_labels` tenants get a label of their own.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Registry, max_tenant_labels: usize) -> Result<Self, prometheus::Error> {
        let tenant = &["tenant_id"];
        let scoped = &["scope", "tenant_id"];
        let families = Arc::new(Families {
            hits: counters(
                r,
                "router_policy_store_cache_hits_total",
                "Lookups answered from memory.",
                tenant,
            )?,
            misses: counters(
                r,
                "router_policy_store_cache_misses_total",
                "Lookups of a policy that is not in memory.",
                tenant,
            )?,
            lookup_latency_ms: histograms(
                r,
                "router_policy_store_lookup_latency_ms",
                "Time from the parsed request to the finished answer of a lookup, in milliseconds.",
                tenant,
                MEMORY_MS,
            )?,
            decisions: counters(
                r,
                "router_policy_decisions_total",
                "Decisions by what they were made by; refusals are not among them.",
                &["tenant_id", "reason"],
            )?,
            decision_latency_ms: histograms(
                r,
                "router_policy_decision_latency_ms",
                "Time from the request's complete body to the finished answer of a decision, in milliseconds.",
                &["tenant_id", "reason"],
                MEMORY_MS,
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
        });
        let other = Arc::new(TenantMetrics::new(&families, "other"));
        Ok(Self {
            store_size: gauge(r, "router_policy_store_size", "Policies in memory.")?,
            store_memory_bytes: gauge(
                r,
                "router_policy_store_memory_bytes",
                "Bytes of the policies' documents in memory.",
            )?,
            age_seconds: float_gauge(
                r,
                "beamline_sidecar_snapshot_age_seconds",
                "Time since the snapshot was last confirmed by its source.",
            )?,
            revision: gauge(
                r,
                "beamline_sidecar_snapshot_revision",
                "HEIR's revision of the snapshot; -1 where HEIR has none.",
            )?,
            problems: gauge(
                r,
                "beamline_sidecar_snapshot_problems",
                "Policies of HEIR or a file that are broken: a write of them would be refused.",
            )?,
            policy_warnings: gauge(
                r,
                "beamline_sidecar_policy_warnings",
                "Policies in memory that a write would be warned for.",
            )?,
            policy_loads: counters(
                r,
                "policy_loads_total",
                "Policies taken into memory, by where they came from.",
                &["tenant_id", "source"],
            )?,
            families,
            max_tenant_labels,
            tenants: Mutex::default(),
            other,
        })
    }

    /// The counters of a tenant that exists. Past the configured number of labels, all share `other`.
    pub fn tenant(&self, tenant: &TenantId) -> Arc<TenantMetrics> {
        let mut tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = tenants.get(tenant) {
            return known.clone();
        }
        if tenants.len() >= self.max_tenant_labels {
            return self.other.clone();
        }
        let metrics = Arc::new(TenantMetrics::new(&self.families, tenant.as_str()));
        tenants.insert(tenant.clone(), metrics.clone());
        metrics
    }

    /// The counters of tenants without a label, and of ids that name no tenant.
    pub fn other_tenant(&self) -> &TenantMetrics {
        &self.other
    }

    /// The label of a tenant: its own if it has one.
    pub fn tenant_label<'t>(&self, tenant: &'t TenantId) -> &'t str {
        let tenants = self.tenants.lock().unwrap_or_else(PoisonError::into_inner);
        if tenants.contains_key(tenant) {
            tenant.as_str()
        } else {
            "other"
        }
    }

    /// Counts policies that were taken into memory; `source` is `heir`, `write`, `disk` or `file`.
    pub fn policies_loaded(&self, tenant: &TenantId, source: &str, count: u64) {
        let label = self.tenant_label(tenant);
        self.policy_loads
            .with_label_values(&[label, source])
            .inc_by(count);
    }
}

/// The counters that a tenant's lookups and decisions touch, each found once.
#[derive(Debug)]
pub struct TenantMetrics {
    /// Lookups answered from memory.
    pub hits: IntCounter,
    /// Lookups of policies that are not in memory.
    pub misses: IntCounter,
    /// Time of lookups.
    pub latency_ms: Histogram,
    families: Arc<Families>,
    label: Box<str>,
    /// A refusal is timed and not counted: the errors have a counter of their own.
    by_reason: [OnceLock<(Option<IntCounter>, Histogram)>; REASONS.len()],
    sticky: [OnceLock<IntCounter>; 2],
}

impl TenantMetrics {
    fn new(families: &Arc<Families>, label: &str) -> Self {
        Self {
            hits: families.hits.with_label_values(&[label]),
            misses: families.misses.with_label_values(&[label]),
            latency_ms: families.lookup_latency_ms.with_label_values(&[label]),
            families: families.clone(),
            label: label.into(),
            by_reason: Default::default(),
            sticky: Default::default(),
        }
    }

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
            let count = (reason != "error").then(|| self.families.decisions.with_label_values(labels));
            (count, self.families.decision_latency_ms.with_label_values(labels))
        });
        latency.observe(milliseconds);
        if let Some(count) = count {
            count.inc();
        }
        if matches!(reason, "fallback" | "circuit_breaker_fallback") {
            self.families.fallbacks.with_label_values(&[&self.label]).inc();
        }
    }

    /// A session that was looked for.
    pub fn session(&self, hit: bool) {
        let vec = if hit {
            &self.families.sticky_hits
        } else {
            &self.families.sticky_misses
        };
        self.sticky[usize::from(hit)]
            .get_or_init(|| vec.with_label_values(&[&self.label]))
            .inc();
    }

    /// A request that met a limit of this scope.
    pub fn limited(&self, scope: &str, allowed: bool) {
        let vec = if allowed {
            &self.families.limits_allowed
        } else {
            &self.families.limits_exceeded
        };
        vec.with_label_values(&[scope, &self.label]).inc();
    }
}
