//! What is made of a call that is over: the answer, what is kept of it, and what is told.

use super::{
    super::{
        answer::{check, failure},
        call::CallError,
        component::{Ran, Raw, Remains},
        host::Said,
        lane::Place,
        vitals::{CallOutcome, Change},
        wire::{CallRecord, LogLevel},
    },
    Attempt,
};
use crate::decide::{Answer, ExtensionError};

impl Attempt<'_> {
    /// Takes note of a call that is over. Its remains are the caller's to clean up.
    pub(super) fn finish(
        &self,
        ran: Ran<Raw>,
        candidates: &[&str],
    ) -> (Result<Answer, ExtensionError>, Remains) {
        let Ran {
            result,
            said,
            took,
            memory_bytes,
            remains,
        } = ran;
        let vitals = &self.extension.vitals;
        let is_cut = result == Err(CallError::Timeout) && self.terms.timeout_ms < self.terms.own_timeout_ms;
        if is_cut || matches!(result, Err(CallError::NoInstance { .. })) {
            // It was not called, or had less time than it is due: nothing that says anything about it.
            vitals.withdraw(self.terms.admitted);
            let answer = result
                .map_err(|error| failure(&error, self.terms.timeout_ms, self.terms.attempts))
                .and_then(|raw| check(raw, candidates));
            return (answer, remains);
        }
        if !self.terms.overran {
            self.moved(vitals.lane.count(took));
        }
        let timed_out = matches!(result, Err(CallError::Timeout));
        self.moved(vitals.lane.count_timeout(timed_out));
        let crash = result.as_ref().err().and_then(CallError::crash).cloned();
        let answer = match result {
            Ok(raw) => check(raw, candidates),
            Err(error) => Err(failure(&error, self.terms.timeout_ms, self.terms.attempts)),
        };
        let outcome = match (&answer, &crash) {
            (Ok(_), _) => CallOutcome::Success,
            (Err(_), Some(report)) => CallOutcome::Crash(report),
            (Err(_), None) => CallOutcome::Failure,
        };
        let whose = (self.record.tenant_id, self.record.policy_id);
        let change = vitals.record(
            &self.host.config,
            (self.terms.admitted, self.terms.now),
            took,
            memory_bytes,
            &outcome,
            whose,
        );
        self.say(&said);
        if let Some(change) = change {
            self.tell(change);
        }
        #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
        self.series.memory_bytes.observe(memory_bytes as f64);
        self.series.run_seconds.inc_by(took.as_secs_f64());
        (answer, remains)
    }

    pub(super) fn moved(&self, to: Option<Place>) {
        let Some(to) = to else { return };
        let (id, lane) = (&*self.extension.id, to.as_str());
        self.host.metrics.moved(id, lane, to != Place::Fast);
        tracing::info!(extension_id = id, lane, "An extension changed lanes.");
    }

    /// Writes what it logged, as far as its rate allows, and counts what it counted.
    fn say(&self, said: &Said) {
        if said.lines.is_empty() && said.counters.is_empty() && said.dropped == 0 {
            return;
        }
        let id = &*self.extension.id;
        let allowed = self.extension.vitals.may_log(self.terms.now, said.lines.len());
        for (level, line) in said.lines.iter().take(allowed) {
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
        let dropped = said.dropped + (said.lines.len() - allowed) as u64;
        self.host.metrics.logged(id, allowed as u64, dropped);
        for (name, amount) in &said.counters {
            self.host.metrics.counted(id, name, *amount);
        }
    }

    fn tell(&self, change: Change) {
        let id = &*self.extension.id;
        let metrics = &self.host.metrics;
        match change {
            Change::BreakerOpened => {
                metrics.barred(id, Some("breaker_open"));
                tracing::warn!(extension_id = id, "The breaker of an extension opened.");
            }
            Change::Quarantined { pause } => {
                metrics.barred(id, Some("quarantined"));
                tracing::warn!(
                    extension_id = id,
                    pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
                    "An extension keeps crashing and is quarantined."
                );
            }
            Change::BreakerClosed | Change::Released => {
                metrics.barred(id, None);
                tracing::info!(extension_id = id, "An extension works again.");
            }
        }
    }
}
