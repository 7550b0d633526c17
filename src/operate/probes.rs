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

/// The process answers, and its threads run; nothing more, so that an outage elsewhere restarts no sidecar.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct Liveness {
    /// What a restart depends on.
    pub status: LivenessState,
    /// For how long the thread that is stuck has not run, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub silence_ms: Option<u64>,
}

/// Whether a restart would help.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LivenessState {
    /// The threads that answer the Router run.
    Live,
    /// One of them has not run for `runtime.stuck_after_ms`.
    Stuck,
}

impl Operator {
    /// Whether the threads that answer the Router run.
    pub fn liveness(&self) -> Liveness {
        if !self.heartbeat.is_stuck() {
            return Liveness {
                status: LivenessState::Live,
                silence_ms: None,
            };
        }
        Liveness {
            status: LivenessState::Stuck,
            silence_ms: u64::try_from(self.heartbeat.silence().as_millis()).ok(),
        }
    }

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
        self.heartbeat.update_metric();
        self.log_metrics.update(&self.logs);
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
            self.extension_metrics
                .memory_in_use
                .set(count(host.memory_in_use()));
            self.extension_metrics.running.set(count(running));
        }
        scrape(&self.registry).map_err(|error| Failure::new(ErrorCode::InternalError, error.to_string()))
    }
}
