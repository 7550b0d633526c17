//! The process's metrics: each room registers its own, in one registry.

use std::sync::Arc;

use prometheus::{Gauge, IntCounterVec, Registry};

use crate::{
    extensions::ExtensionMetrics,
    health_check::HealthCheckMetrics,
    heartbeat,
    heir::HeirMetrics,
    intake::IntakeMetrics,
    listener::ListenersMetrics,
    refresh::RefreshMetrics,
    route::RouteMetrics,
    snapshot::SnapshotMetrics,
    telemetry::{
        LogMetrics,
        registry::{counters, gauges},
    },
    write::WriteMetrics,
};

/// The metrics of every part.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) registry: Registry,
    pub(super) logs: Arc<LogMetrics>,
    pub(super) listeners: ListenersMetrics,
    pub(super) route: Arc<RouteMetrics>,
    pub(super) intake: Arc<IntakeMetrics>,
    pub(super) write: Arc<WriteMetrics>,
    pub(super) refresh: Arc<RefreshMetrics>,
    pub(super) snapshot: Arc<SnapshotMetrics>,
    pub(super) heir: Arc<HeirMetrics>,
    pub(super) health_check: Arc<HealthCheckMetrics>,
    pub(super) extensions: Arc<ExtensionMetrics>,
    pub(super) silence_seconds: Gauge,
    config_reloads: IntCounterVec,
    worker_restarts: IntCounterVec,
}

impl Metrics {
    /// Registers everything. Fails only if two metrics have the same name, which a test would find.
    pub(super) fn register(max_tenant_labels: usize) -> Result<Self, prometheus::Error> {
        let r = Registry::new();
        let build = gauges(
            &r,
            "beamline_sidecar_build_info",
            "Always 1; the labels name the build.",
            &["version", "commit"],
        )?;
        build
            .with_label_values(&[env!("CARGO_PKG_VERSION"), env!("BEAMLINE_COMMIT")])
            .set(1);
        let worker_restarts = counters(
            &r,
            "beamline_sidecar_worker_restarts_total",
            "Workers of `run --supervised` that were replaced, by cause: signal, exit, hung.",
            &["cause"],
        )?;
        for cause in ["signal", "exit", "hung"] {
            worker_restarts.with_label_values(&[cause]);
        }
        Ok(Self {
            logs: Arc::new(LogMetrics::register(&r)?),
            listeners: ListenersMetrics::register(&r)?,
            route: Arc::new(RouteMetrics::register(&r)?),
            intake: Arc::new(IntakeMetrics::register(&r)?),
            write: Arc::new(WriteMetrics::register(&r)?),
            refresh: Arc::new(RefreshMetrics::register(&r)?),
            snapshot: Arc::new(SnapshotMetrics::register(&r, max_tenant_labels)?),
            heir: Arc::new(HeirMetrics::register(&r)?),
            health_check: Arc::new(HealthCheckMetrics::register(&r)?),
            extensions: Arc::new(ExtensionMetrics::register(&r)?),
            silence_seconds: heartbeat::silence_seconds(&r)?,
            config_reloads: counters(
                &r,
                "beamline_sidecar_config_reloads_total",
                "Reloads of the configuration by outcome: applied, refused.",
                &["outcome"],
            )?,
            worker_restarts,
            registry: r,
        })
    }

    /// Notes how often workers were replaced for a cause, before this process was started.
    pub(super) fn worker_restarts(&self, cause: &str, count: u64) {
        self.worker_restarts.with_label_values(&[cause]).inc_by(count);
    }

    /// Counts a reload of the configuration: `applied` or `refused`.
    pub(super) fn config_reload(&self, outcome: &str) {
        self.config_reloads.with_label_values(&[outcome]).inc();
    }
}
