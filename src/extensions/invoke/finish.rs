//! The end of a call: its answer, and what is recorded and logged about it.

use std::time::Duration;

use super::{attempt::Attempt, change::report, input::InputSize};
use crate::{
    decide::{Answer, ExtensionError},
    extensions::{
        health::{CallOutcome, Cost, Recorded},
        sandbox::{
            CallError, CallOutput, CallRecord, GuestOutput, LogLevel, Raw, Share, SpentStore, check_answer,
            failure,
        },
        scheduling::{FAST, Place},
    },
};

/// An answer, and what it takes of the memory of all calls for as long as the request keeps it.
pub(super) struct Kept {
    pub(super) answer: Answer,
    pub(super) share: Option<Share>,
}

/// A call that computed for so long had reasonable time, even if its own would have been longer: where no call ever took
/// nearly as long.
const REASONABLE: Duration = Duration::from_millis(50);
/// How many times as long as any other call is not nearly as long.
const TIMES_AS_LONG: u32 = 4;

impl Attempt<'_> {
    /// Checks the answer of a call that is over, and records it. What the host does for it is the call's time too. The caller
    /// cleans up its instance.
    pub(super) fn finish(
        &self,
        call: CallOutput<Raw>,
        candidates: &[&str],
    ) -> (Result<Kept, ExtensionError>, SpentStore) {
        let CallOutput {
            result,
            output,
            took: _,
            timer,
            memory_bytes,
            fuel: _,
            spent,
        } = call;
        let health = &self.target.health;
        let own = Duration::from_millis(self.terms.own_timeout_ms.into());
        let crash = result.as_ref().err().and_then(CallError::crash).cloned();
        let ran_out = matches!(result, Err(CallError::Memory(_)));
        // For its extension's health that is the same: it had reasonable time, and did not end.
        let was_pushed_out = matches!(result, Err(CallError::PushedOut));
        let mut timed_out = was_pushed_out || matches!(result, Err(CallError::Timeout));
        let timeout = || failure(&CallError::Timeout, self.terms.timeout_ms, self.terms.attempts);
        let mut answer = match result {
            Ok(raw) => self.keep(raw, candidates),
            Err(error) => Err(failure(&error, self.terms.timeout_ms, self.terms.attempts)),
        };
        let took = timer.elapsed();
        let ran = if took < FAST { took } else { timer.ran(took) };
        if answer.is_ok() && ran >= own {
            timed_out = true;
            answer = Err(timeout());
        }
        if !was_pushed_out && matches!(answer, Err(ExtensionError::Unavailable)) {
            // There was no room for it, or for its answer: that is not the extension's doing.
            self.withdraw();
            return (answer, spent);
        }
        if timed_out && ran < self.reasonable(own) {
            // It had too little time: the outcome is not the extension's, but what it computed may have been too much for
            // its lane.
            self.withdraw();
            if !self.terms.overran {
                self.moved(health.ran(self.terms.now, self.record.tenant_id, ran));
            }
            return (answer, spent);
        }
        // What a large message needs is the message's fault.
        let crash = crash.filter(|_| !(ran_out && self.terms.size == InputSize::Large));
        let outcome = match (&answer, &crash) {
            (Ok(_), _) => CallOutcome::Success,
            (Err(_), Some(report)) => CallOutcome::Crash(report),
            (Err(_), None) if timed_out => CallOutcome::Timeout,
            (Err(_), None) => CallOutcome::Failure,
        };
        let caller = (self.record.tenant_id, self.record.policy_id);
        let cost = Cost {
            took,
            computed: ran,
            ran: (!self.terms.overran).then_some(ran),
            memory_bytes,
        };
        let when = (self.terms.admitted, self.terms.now);
        let Recorded { change, moved } = health.record(self.config, when, cost, &outcome, caller);
        self.moved(moved);
        self.log(&output);
        if let Some(change) = change {
            report(self.metrics, self.extension, change, self.terms.now, caller.0);
        }
        #[expect(clippy::cast_precision_loss, reason = "a few megabytes")]
        self.series.memory_bytes.observe(memory_bytes as f64);
        self.series.run_seconds.inc_by(ran.as_secs_f64());
        (answer, spent)
    }

    /// Checks an answer, and takes what it needs of the memory of all calls.
    fn keep(&self, raw: Raw, candidates: &[&str]) -> Result<Kept, ExtensionError> {
        let share = match raw.bytes() {
            0 => None,
            bytes => {
                let budget = self.target.prepared.budget();
                let share = budget.share_of(self.record.tenant_id, bytes);
                Some(share.ok_or(ExtensionError::Unavailable)?)
            }
        };
        let answer = check_answer(raw, candidates)?;
        Ok(Kept { answer, share })
    }

    /// For how long a call has to compute before it counts that it does not end: callers with deadlines of their own must not
    /// hide one that never does.
    pub(super) fn reasonable(&self, own: Duration) -> Duration {
        let usual = self.target.health.slowest_success() * TIMES_AS_LONG;
        (own / 2).min(usual.max(REASONABLE))
    }

    /// Counts and logs that the extension moved to another lane.
    pub(super) fn moved(&self, to: Option<Place>) {
        let Some(to) = to else { return };
        let (id, lane) = (&*self.extension.id, to.as_str());
        self.metrics
            .moved(id, lane, self.extension.health.slowest_place() != Place::Fast);
        if self.extension.health.is_news_that_it_moved(self.terms.now) {
            tracing::info!(
                extension_id = id,
                tenant_id = self.record.tenant_id,
                lane,
                "The calls of an extension for a tenant changed lanes. Further changes are counted only, for ten minutes."
            );
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
}
