//! Metrics of the data plane's answers.

use prometheus::{IntCounterVec, Registry};

use crate::{failure::ErrorCode, telemetry::registry::counters};

/// Metrics of the data plane's answers.
#[derive(Debug)]
pub struct RouteMetrics {
    errors: IntCounterVec,
}

impl RouteMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            errors: counters(
                r,
                "beamline_sidecar_errors_total",
                "Error answers of the data plane, by code.",
                &["code"],
            )?,
        })
    }

    /// Counts an error answer.
    pub fn error(&self, code: ErrorCode) {
        self.errors.with_label_values(&[code.as_str()]).inc();
    }
}
