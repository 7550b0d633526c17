//! Metrics of writes.

use prometheus::{IntCounterVec, IntGauge, Registry};

use crate::telemetry::registry::{counters, gauge};

/// Metrics of writes.
#[derive(Debug)]
pub struct WriteMetrics {
    writes: IntCounterVec,
    /// Writes that wait for HEIR.
    pub journal_depth: IntGauge,
    /// Writes that wait for an operator.
    pub journal_conflicts: IntGauge,
    /// Bytes of all that waits.
    pub journal_bytes: IntGauge,
}

impl WriteMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            writes: counters(
                r,
                "beamline_sidecar_writes_total",
                "PUT and DELETE by outcome: forwarded, queued, rejected, replayed, conflict, discarded.",
                &["outcome"],
            )?,
            journal_depth: gauge(r, "beamline_sidecar_journal_depth", "Writes that wait for HEIR.")?,
            journal_conflicts: gauge(
                r,
                "beamline_sidecar_journal_conflicts",
                "Writes that wait for an operator.",
            )?,
            journal_bytes: gauge(
                r,
                "beamline_sidecar_journal_bytes",
                "Bytes on the disk of the writes that wait.",
            )?,
        })
    }

    /// Counts a write by what became of it.
    pub fn write(&self, outcome: &str) {
        self.writes.with_label_values(&[outcome]).inc();
    }
}
