//! Metrics of writes.

use prometheus::{IntCounter, IntCounterVec, IntGauge, Registry};

use crate::telemetry::registry::{counter, counters, gauge};

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
    /// Acknowledged writes that are not remembered any longer, for lack of room.
    pub ledger_evictions: IntCounter,
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
            ledger_evictions: counter(
                r,
                "beamline_sidecar_ledger_evictions_total",
                "Acknowledged writes forgotten for lack of room.",
            )?,
        })
    }

    /// Counts a write by what became of it.
    pub fn write(&self, outcome: &str) {
        self.writes.with_label_values(&[outcome]).inc();
    }
}
