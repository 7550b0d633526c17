//! The process's metrics: each room registers its own, in one registry.

use std::sync::Arc;

use prometheus::{IntCounterVec, Registry};

use crate::{
    extensions::ExtensionMetrics,
    health_check::HealthCheckMetrics,
    heir::HeirMetrics,
    intake::IntakeMetrics,
    listener::ListenersMetrics,
    refresh::RefreshMetrics,
    route::RouteMetrics,
    snapshot::SnapshotMetrics,
    telemetry::registry::{counters, gauges},
    write::WriteMetrics,
};

/// The metrics of every part.
#[derive(Debug)]
pub(super) struct Metrics {
    pub(super) registry: Registry,
    pub(super) listeners: ListenersMetrics,
    pub(super) route: Arc<RouteMetrics>,
    pub(super) intake: Arc<IntakeMetrics>,
    pub(super) write: Arc<WriteMetrics>,
    pub(super) refresh: Arc<RefreshMetrics>,
    pub(super) snapshot: Arc<SnapshotMetrics>,
    pub(super) heir: Arc<HeirMetrics>,
    pub(super) health_check: Arc<HealthCheckMetrics>,
    pub(super) extensions: Arc<ExtensionMetrics>,
    config_reloads: IntCounterVec,
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
        Ok(Self {
            listeners: ListenersMetrics::register(&r)?,
            route: Arc::new(RouteMetrics::register(&r)?),
            intake: Arc::new(IntakeMetrics::register(&r)?),
            write: Arc::new(WriteMetrics::register(&r)?),
            refresh: Arc::new(RefreshMetrics::register(&r)?),
            snapshot: Arc::new(SnapshotMetrics::register(&r, max_tenant_labels)?),
            heir: Arc::new(HeirMetrics::register(&r)?),
            health_check: Arc::new(HealthCheckMetrics::register(&r)?),
            extensions: Arc::new(ExtensionMetrics::register(&r)?),
            config_reloads: counters(
                &r,
                "beamline_sidecar_config_reloads_total",
                "Reloads of the configuration by outcome: applied, refused.",
                &["outcome"],
            )?,
            registry: r,
        })
    }

    /// Counts a reload of the configuration: `applied` or `refused`.
    pub(super) fn config_reload(&self, outcome: &str) {
        self.config_reloads.with_label_values(&[outcome]).inc();
    }
}
