//! What machines ask: liveness, readiness, metrics.

use std::time::Instant;

use schemars::JsonSchema;
use serde::Serialize;

use super::operator::Operator;
use crate::{
    failure::{ErrorCode, Failure},
    readiness::ReadinessStatus,
    telemetry::registry::scrape,
};

/// The process runs and answers; nothing more, so that an outage elsewhere restarts no sidecar.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Liveness {
    /// `live`.
    pub status: &'static str,
}

impl Liveness {
    /// Of a process that can be asked.
    pub const LIVE: Self = Self { status: "live" };
}

impl Operator {
    /// How well lookups can be answered, and why.
    pub fn readiness(&self) -> ReadinessStatus {
        self.readiness.status()
    }

    /// All metrics in Prometheus' text format 0.0.4, those that are read from elsewhere brought up to date.
    ///
    /// # Errors
    /// `internal_error`: the metrics cannot be written out.
    pub fn scrape(&self) -> Result<Vec<u8>, Failure> {
        let (age_ms, _) = self.store.freshness().at(Instant::now());
        self.store.metrics().age_seconds.set(age_ms as f64 / 1e3);
        let memory = &self.memory;
        self.intake_metrics.memory(
            memory.sticky.len(),
            memory.sticky.evicted(),
            memory.buckets.evicted(),
        );
        if let Some(host) = self.store.extensions() {
            let (waiting, running) = host.load();
            let count = |count| i64::try_from(count).unwrap_or(i64::MAX);
            self.extension_metrics.slow_waiting.set(count(waiting));
            self.extension_metrics.running.set(count(running));
        }
        scrape(&self.registry).map_err(|error| Failure::new(ErrorCode::InternalError, error.to_string()))
    }
}
