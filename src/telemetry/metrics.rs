//! Every metric: name, labels, help. `docs/metrics.md` lists the same, and a test compares the two.
//!
//! The names of the platform's contract are used where it has one. Its `policy_id` label is left out everywhere and
//! `tenant_id` is bounded: the first tenants that a snapshot brings get a label, all others share `other`, and an
//! id that a client made up never becomes one.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use prometheus::{
    Encoder, Gauge, GaugeVec, Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge,
    IntGaugeVec, Opts, Registry, TextEncoder,
};

use super::{
    decisions::{DecisionMetrics, TenantDecisions},
    extensions::ExtensionMetrics,
};
use crate::{listener::ListenerMetrics, policy::TenantId, respond::ErrorCode};

/// Calls to HEIR, as the `call` label names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeirCall {
    Health,
    Get,
    Put,
    Delete,
    List,
    Snapshot,
    Changes,
    Module,
    Forward,
}

impl HeirCall {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Snapshot => "snapshot",
            Self::Changes => "changes",
            Self::Module => "module",
            Self::Forward => "forward",
        }
    }
}

/// The counters that a lookup touches, found once per tenant when its snapshot is built.
#[derive(Debug)]
pub struct TenantMetrics {
    pub hits: IntCounter,
    pub misses: IntCounter,
    pub latency_ms: Histogram,
    pub decisions: TenantDecisions,
}

/// The process's metrics.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    max_tenant_labels: usize,
    tenants: Mutex<HashMap<TenantId, Arc<TenantMetrics>>>,
    other: Arc<TenantMetrics>,
    hits: IntCounterVec,
    misses: IntCounterVec,
    lookup_latency_ms: HistogramVec,
    policy_loads: IntCounterVec,
    errors: IntCounterVec,
    connections: IntGaugeVec,
    accept_errors: IntCounterVec,
    heir_requests: IntCounterVec,
    heir_duration: HistogramVec,
    refreshes: IntCounterVec,
    level: IntGaugeVec,
    writes: IntCounterVec,
    config_reloads: IntCounterVec,
    health_checks: IntCounterVec,
    pub providers_unhealthy: IntGauge,
    pub store_size: IntGauge,
    pub store_memory_bytes: IntGauge,
    pub load_time_ms: Gauge,
    pub snapshot_age_seconds: Gauge,
    pub snapshot_revision: IntGauge,
    pub snapshot_problems: IntGauge,
    pub policy_warnings: IntGauge,
    pub refresh_duration_seconds: Histogram,
    pub journal_depth: IntGauge,
    pub journal_conflicts: IntGauge,
    pub breaker_state: IntGauge,
    pub heir_up: IntGauge,
    pub waiting_requests: IntGauge,
    pub decisions: Arc<DecisionMetrics>,
    pub extensions: ExtensionMetrics,
}

const LOOKUP_MS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 1.0, 5.0, 50.0, 500.0, 5000.0,
];
const SECONDS: &[f64] = &[
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0,
];

impl Metrics {
    /// Registers everything. Fails only if two metrics have the same name, which a test would find.
    pub fn new(max_tenant_labels: usize) -> Result<Arc<Self>, prometheus::Error> {
        let r = Registry::new();
        let hits = counters(
            &r,
            "router_policy_store_cache_hits_total",
            "Lookups answered from memory.",
            &["tenant_id"],
        )?;
        let misses = counters(
            &r,
            "router_policy_store_cache_misses_total",
            "Lookups of a policy that is not in memory.",
            &["tenant_id"],
        )?;
        let lookup_latency_ms = histograms(
            &r,
            "router_policy_store_lookup_latency_ms",
            "Time from the parsed request to the finished answer of a lookup, in milliseconds.",
            &["tenant_id"],
            LOOKUP_MS,
        )?;
        let decisions = Arc::new(DecisionMetrics::new(&r)?);
        let extensions = ExtensionMetrics::new(&r)?;
        let other = Arc::new(TenantMetrics {
            decisions: decisions.tenant("other"),
            hits: hits.with_label_values(&["other"]),
            misses: misses.with_label_values(&["other"]),
            latency_ms: lookup_latency_ms.with_label_values(&["other"]),
        });
        let build = gauges(
            &r,
            "beamline_sidecar_build_info",
            "Always 1; the labels name the build.",
            &["version", "commit"],
        )?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), env!("BEAMLINE_COMMIT")])
            .set(1);
        let refresh_duration_seconds = histograms(
            &r,
            "beamline_sidecar_refresh_duration_seconds",
            "Time of one refresh that changed the snapshot, from the answer's first byte to its publication.",
            &[],
            SECONDS,
        )?
        .with_label_values::<&str>(&[]);
        let health_checks = counters(
            &r,
            "beamline_sidecar_health_checks_total",
            "Active checks of providers by outcome: healthy, unhealthy, timeout, unreachable.",
            &["outcome"],
        )?;
        for outcome in ["healthy", "unhealthy", "timeout", "unreachable"] {
            health_checks.with_label_values(&[outcome]);
        }
        Ok(Arc::new(Self {
            health_checks,
            providers_unhealthy: gauge(
                &r,
                "beamline_sidecar_providers_unhealthy",
                "Providers that failed their active checks, counted per tenant.",
            )?,
            max_tenant_labels,
            tenants: Mutex::default(),
            other,
            hits,
            misses,
            lookup_latency_ms,
            policy_loads: counters(
                &r,
                "policy_loads_total",
                "Policies taken into memory, by where they came from.",
                &["tenant_id", "source"],
            )?,
            errors: counters(
                &r,
                "beamline_sidecar_errors_total",
                "Error answers of the data plane, by code.",
                &["code"],
            )?,
            connections: gauges(
                &r,
                "beamline_sidecar_connections",
                "Open connections.",
                &["listener"],
            )?,
            accept_errors: counters(
                &r,
                "beamline_sidecar_accept_errors_total",
                "Connections that could not be accepted.",
                &["listener"],
            )?,
            heir_requests: counters(
                &r,
                "beamline_sidecar_heir_requests_total",
                "Requests to HEIR by call and outcome.",
                &["call", "outcome"],
            )?,
            heir_duration: histograms(
                &r,
                "beamline_sidecar_heir_request_duration_seconds",
                "Time until HEIR's answer begins; long polls are not observed.",
                &["call"],
                SECONDS,
            )?,
            refreshes: counters(
                &r,
                "beamline_sidecar_refresh_total",
                "Refreshes by outcome: changed, unchanged, held, failed.",
                &["outcome"],
            )?,
            level: gauges(
                &r,
                "beamline_sidecar_heir_level",
                "1 for the level of the HEIR API in use, 0 for the others.",
                &["level"],
            )?,
            writes: counters(
                &r,
                "beamline_sidecar_writes_total",
                "PUT and DELETE by outcome: forwarded, queued, rejected, replayed, conflict, discarded.",
                &["outcome"],
            )?,
            config_reloads: counters(
                &r,
                "beamline_sidecar_config_reloads_total",
                "Reloads of the configuration by outcome: applied, refused.",
                &["outcome"],
            )?,
            store_size: gauge(&r, "router_policy_store_size", "Policies in memory.")?,
            store_memory_bytes: gauge(
                &r,
                "router_policy_store_memory_bytes",
                "Bytes of the policies' documents in memory.",
            )?,
            load_time_ms: float_gauge(
                &r,
                "router_policy_store_load_time_ms",
                "Time of the last refresh that changed the snapshot, in milliseconds.",
            )?,
            snapshot_age_seconds: float_gauge(
                &r,
                "beamline_sidecar_snapshot_age_seconds",
                "Time since the snapshot was last confirmed by its source.",
            )?,
            snapshot_revision: gauge(
                &r,
                "beamline_sidecar_snapshot_revision",
                "HEIR's revision of the snapshot; -1 where HEIR has none.",
            )?,
            snapshot_problems: gauge(
                &r,
                "beamline_sidecar_snapshot_problems",
                "Policies that could not be taken and keep their last good version.",
            )?,
            policy_warnings: gauge(
                &r,
                "beamline_sidecar_policy_warnings",
                "Policies in memory that a write would be refused or warned for.",
            )?,
            refresh_duration_seconds,
            journal_depth: gauge(&r, "beamline_sidecar_journal_depth", "Writes that wait for HEIR.")?,
            journal_conflicts: gauge(
                &r,
                "beamline_sidecar_journal_conflicts",
                "Writes that wait for an operator.",
            )?,
            breaker_state: gauge(
                &r,
                "beamline_sidecar_heir_breaker_state",
                "Breaker towards HEIR: 0 closed, 1 open, 2 half open.",
            )?,
            heir_up: gauge(
                &r,
                "beamline_sidecar_heir_up",
                "1 if the last call to HEIR was answered.",
            )?,
            waiting_requests: gauge(
                &r,
                "beamline_sidecar_waiting_requests",
                "Requests that wait for HEIR or the disk.",
            )?,
            decisions,
            extensions,
            registry: r,
        }))
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
        let label = &[tenant.as_str()];
        let metrics = Arc::new(TenantMetrics {
            decisions: self.decisions.tenant(tenant.as_str()),
            hits: self.hits.with_label_values(label),
            misses: self.misses.with_label_values(label),
            latency_ms: self.lookup_latency_ms.with_label_values(label),
        });
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

    pub fn policies_loaded(&self, tenant: &TenantId, source: &str, count: u64) {
        let label = self.tenant_label(tenant);
        self.policy_loads
            .with_label_values(&[label, source])
            .inc_by(count);
    }

    pub fn error(&self, code: ErrorCode) {
        self.errors.with_label_values(&[code.as_str()]).inc();
    }

    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            connections: self.connections.with_label_values(&[name]),
            accept_errors: self.accept_errors.with_label_values(&[name]),
        }
    }

    pub fn heir_request(&self, call: HeirCall, outcome: &str, seconds: Option<f64>) {
        self.heir_requests
            .with_label_values(&[call.as_str(), outcome])
            .inc();
        if let Some(seconds) = seconds {
            self.heir_duration
                .with_label_values(&[call.as_str()])
                .observe(seconds);
        }
    }

    pub fn refresh(&self, outcome: &str) {
        self.refreshes.with_label_values(&[outcome]).inc();
    }

    pub fn level(&self, current: &str, all: &[&str]) {
        for name in all {
            self.level
                .with_label_values(&[name])
                .set(i64::from(*name == current));
        }
    }

    pub fn write(&self, outcome: &str) {
        self.writes.with_label_values(&[outcome]).inc();
    }

    pub fn health_check(&self, outcome: &str) {
        self.health_checks.with_label_values(&[outcome]).inc();
    }

    pub fn config_reload(&self, outcome: &str) {
        self.config_reloads.with_label_values(&[outcome]).inc();
    }

    /// The exposition, Prometheus text format 0.0.4.
    pub fn scrape(&self) -> Result<Vec<u8>, prometheus::Error> {
        let mut text = Vec::with_capacity(32 * 1024);
        TextEncoder::new().encode(&self.registry.gather(), &mut text)?;
        Ok(text)
    }
}

pub(super) fn counters(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let metric = IntCounterVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<IntGaugeVec, prometheus::Error> {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn gauge(r: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let metric = IntGauge::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn float_gauge(r: &Registry, name: &str, help: &str) -> Result<Gauge, prometheus::Error> {
    let metric = Gauge::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn histograms(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> Result<HistogramVec, prometheus::Error> {
    let metric = HistogramVec::new(HistogramOpts::new(name, help).buckets(buckets.to_vec()), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn counter(r: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let metric = IntCounter::new(name, help)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}

pub(super) fn float_gauges(
    r: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> Result<GaugeVec, prometheus::Error> {
    let metric = GaugeVec::new(Opts::new(name, help), labels)?;
    r.register(Box::new(metric.clone()))?;
    Ok(metric)
}
