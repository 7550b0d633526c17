//! The end of a call: its answer, and what is recorded and logged about it.

use super::attempt::Attempt;
use crate::{
    decide::{Answer, ExtensionError},
    extensions::{
        health::{CallOutcome, Change},
        sandbox::{
            CallError, CallOutput, CallRecord, GuestOutput, LogLevel, Raw, SpentStore, check_answer, failure,
        },
        scheduling::Place,
    },
};

impl Attempt<'_> {
    /// Records a call that is over. The caller cleans up its instance.
    pub(super) fn finish(
        &self,
        call: CallOutput<Raw>,
        candidates: &[&str],
    ) -> (Result<Answer, ExtensionError>, SpentStore) {
        let CallOutput {
            result,
            output,
            took,
            memory_bytes,
            spent,
        } = call;
        let health = &self.extension.health;
        let is_cut = result == Err(CallError::Timeout) && self.terms.timeout_ms < self.terms.own_timeout_ms;
        if is_cut || matches!(result, Err(CallError::NoInstance { .. })) {
            // It was not called, or had less time than its own: the outcome is not the extension's.
            health.withdraw(self.terms.admitted);
            let answer = result
                .map_err(|error| failure(&error, self.terms.timeout_ms, self.terms.attempts))
                .and_then(|raw| check_answer(raw, candidates));
            return (answer, spent);
        }
        if !self.terms.overran {
            self.moved(health.lane.count(took));
        }
        let timed_out = matches!(result, Err(CallError::Timeout));
        self.moved(health.lane.count_timeout(timed_out));
        let crash = result.as_ref().err().and_then(CallError::crash).cloned();
        let answer = match result {
            Ok(raw) => check_answer(raw, candidates),
            Err(error) => Err(failure(&error, self.terms.timeout_ms, self.terms.attempts)),
        };
        let outcome = match (&answer, &crash) {
            (Ok(_), _) => CallOutcome::Success,
            (Err(_), Some(report)) => CallOutcome::Crash(report),
            (Err(_), None) => CallOutcome::Failure,
        };
        let caller = (self.record.tenant_id, self.record.policy_id);
        let change = health.record(
            self.config,
            (self.terms.admitted, self.terms.now),
            took,
            memory_bytes,
            &outcome,
            caller,
        );
        self.log(&output);
        if let Some(change) = change {
            self.report(change);
        }
        #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
        self.series.memory_bytes.observe(memory_bytes as f64);
        self.series.run_seconds.inc_by(took.as_secs_f64());
        (answer, spent)
    }

    /// Counts and logs that the extension moved to another lane.
    pub(super) fn moved(&self, to: Option<Place>) {
        let Some(to) = to else { return };
        let (id, lane) = (&*self.extension.id, to.as_str());
        self.metrics.moved(id, lane, to != Place::Fast);
        if self.extension.health.is_news_that_it_moved(self.terms.now) {
            tracing::info!(
                extension_id = id,
                lane,
                "An extension changed lanes. Further changes are counted only, for ten minutes."
            );
        } else {
            tracing::debug!(extension_id = id, lane, "An extension changed lanes.");
        }
    }

    /// Writes what it logged, as far as its rate allows, and adds what it counted.
    fn log(&self, output: &GuestOutput) {
        if output.lines.is_empty() && output.counters.is_empty() && output.dropped == 0 {
            return;
        }
        let id = &*self.extension.id;
        let allowed = self.extension.health.may_log(self.terms.now, output.lines.len());
        for (level, line) in output.lines.iter().take(allowed) {
            let CallRecord {
                tenant_id,
                policy_id,
                trace_id,
                ..
            } = self.record;
            match level {
                LogLevel::Debug => {
                    tracing::debug!(target: "extension", extension_id = id, tenant_id, policy_id, trace_id, "{line}")
                }
                LogLevel::Info => {
                    tracing::info!(target: "extension", extension_id = id, tenant_id, policy_id, trace_id, "{line}")
                }
                LogLevel::Warn => {
                    tracing::warn!(target: "extension", extension_id = id, tenant_id, policy_id, trace_id, "{line}")
                }
                LogLevel::Error => {
                    tracing::error!(target: "extension", extension_id = id, tenant_id, policy_id, trace_id, "{line}")
                }
            }
        }
        let dropped = output.dropped + (output.lines.len() - allowed) as u64;
        self.metrics.logged(id, allowed as u64, dropped);
        for (name, amount) in &output.counters {
            self.metrics.counted(id, name, *amount);
        }
    }

    /// Counts and logs a change of its health.
    fn report(&self, change: Change) {
        let id = &*self.extension.id;
        let metrics = self.metrics;
        match change {
            Change::BreakerOpened => {
                metrics.blocked(id, Some("breaker_open"));
                tracing::warn!(extension_id = id, "The breaker of an extension opened.");
            }
            Change::Quarantined { pause } => {
                metrics.blocked(id, Some("quarantined"));
                tracing::warn!(
                    extension_id = id,
                    pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    "An extension keeps crashing and is quarantined."
                );
            }
            Change::BreakerClosed | Change::Released => {
                metrics.blocked(id, None);
                tracing::info!(extension_id = id, "An extension works again.");
            }
        }
    }
}
