//! Metrics of the listeners.

use prometheus::{IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::telemetry::registry::{counters, gauges};

/// The families, with a label for each listener.
#[derive(Debug)]
pub struct ListenersMetrics {
    connections: IntGaugeVec,
    accept_errors: IntCounterVec,
}

/// What one listener reports of itself.
#[derive(Debug, Clone)]
pub struct ListenerMetrics {
    /// Open connections.
    pub connections: IntGauge,
    /// Connections that could not be accepted.
    pub accept_errors: IntCounter,
}

impl ListenersMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            connections: gauges(
                r,
                "beamline_sidecar_connections",
                "Open connections.",
                &["listener"],
            )?,
            accept_errors: counters(
                r,
                "beamline_sidecar_accept_errors_total",
                "Connections that could not be accepted.",
                &["listener"],
            )?,
        })
    }

    /// The metrics of the listener of this name.
    pub fn listener(&self, name: &str) -> ListenerMetrics {
        ListenerMetrics {
            connections: self.connections.with_label_values(&[name]),
            accept_errors: self.accept_errors.with_label_values(&[name]),
        }
    }
}
