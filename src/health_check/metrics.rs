//! Metrics of active checks.

use prometheus::{IntCounterVec, IntGauge, Registry};

use crate::telemetry::registry::{counters, gauge};

/// Metrics of active checks.
#[derive(Debug)]
pub struct HealthCheckMetrics {
    checks: IntCounterVec,
    /// Providers that failed their checks, counted per tenant.
    pub providers_unhealthy: IntGauge,
}

impl HealthCheckMetrics {
    /// Registers the families, every outcome at zero.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        let checks = counters(
            r,
            "beamline_sidecar_health_checks_total",
            "Active checks of providers by outcome: healthy, unhealthy, timeout, unreachable.",
            &["outcome"],
        )?;
        for outcome in ["healthy", "unhealthy", "timeout", "unreachable"] {
            checks.with_label_values(&[outcome]);
        }
        Ok(Self {
            checks,
            providers_unhealthy: gauge(
                r,
                "beamline_sidecar_providers_unhealthy",
                "Providers that failed their active checks, counted per tenant.",
            )?,
        })
    }

    /// Counts a check: `healthy`, `unhealthy`, `timeout` or `unreachable`.
    pub fn check(&self, outcome: &str) {
        self.checks.with_label_values(&[outcome]).inc();
    }
}
