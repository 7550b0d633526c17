//! The open paths: liveness, readiness, metrics.

use std::time::Instant;

use http::{HeaderValue, StatusCode};
use serde_json::json;

use super::Admin;
use crate::{
    failure::{ErrorCode, Failure},
    readiness::State,
    respond::{self, Response},
    telemetry::registry::scrape,
};

/// The process runs and answers; nothing more, so that an outage elsewhere restarts nobody.
pub(super) fn live() -> Response {
    respond::json(StatusCode::OK, &json!({"status": "live"}))
}

impl Admin {
    /// 200 while lookups can be answered, with how well and why; 503 otherwise.
    pub(super) fn ready(&self) -> Response {
        let judgement = self.readiness.status();
        let status = match judgement.state {
            State::Live | State::Degraded => StatusCode::OK,
            State::NotReady => StatusCode::SERVICE_UNAVAILABLE,
        };
        respond::json(status, &judgement)
    }

    pub(super) fn scrape(&self) -> Response {
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
        match scrape(&self.registry) {
            Ok(text) => {
                let kind = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");
                respond::with_body(StatusCode::OK, kind, text.into())
            }
            Err(error) => respond::failure(Failure::new(ErrorCode::InternalError, error.to_string())),
        }
    }
}
