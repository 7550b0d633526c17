//! Metrics of refreshing.

use prometheus::{Gauge, Histogram, IntCounterVec, IntGaugeVec, Registry};

use crate::telemetry::registry::{SECONDS, counters, float_gauge, gauges, histograms};

/// Metrics of refreshing.
#[derive(Debug)]
pub struct RefreshMetrics {
    refreshes: IntCounterVec,
    level: IntGaugeVec,
    /// Time of the last refresh that changed the snapshot.
    pub load_time_ms: Gauge,
    /// Time of refreshes that changed the snapshot.
    pub duration_seconds: Histogram,
}

impl RefreshMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            refreshes: counters(
                r,
                "beamline_sidecar_refresh_total",
                "Refreshes by outcome: changed, unchanged, held, failed.",
                &["outcome"],
            )?,
            level: gauges(
                r,
                "beamline_sidecar_heir_api_level",
                "1 for the level of the HEIR API in use, 0 for the others.",
                &["level"],
            )?,
            load_time_ms: float_gauge(
                r,
                "router_policy_store_load_time_ms",
                "Time of the last refresh that changed the snapshot, in milliseconds.",
            )?,
            duration_seconds: histograms(
            r,
            "beamline_sidecar_refresh_duration_seconds",
            "Time of one refresh that changed the snapshot, from the answer's first byte to its publication.",
            &[],
            SECONDS,
        )?
        .with_label_values::<&str>(&[]),
        })
    }

    /// Counts a refresh: `changed`, `unchanged`, `held` or `failed`.
    pub fn refresh(&self, outcome: &str) {
        self.refreshes.with_label_values(&[outcome]).inc();
    }

    /// Marks the level in use among all of them.
    pub fn level(&self, current: &str, all: &[&str]) {
        for name in all {
            self.level
                .with_label_values(&[name])
                .set(i64::from(*name == current));
        }
    }
}
