//! One attempt to call an extension: everything about it, borrowed from the caller.

use std::{sync::Arc, time::Duration};

use super::input::InputSize;
use crate::{
    clock::Timestamp,
    extensions::{
        config::ExtensionsConfig,
        health::Admitted,
        metrics::{ExecutionSeries, ExtensionMetrics},
        recording::{RecordedCall, Recorder},
        registry::{Extension, Target},
        sandbox::{CallEnv, CallOutput, CallRecord, Raw, Work},
    },
};

/// One attempt, on whichever thread.
pub(super) struct Attempt<'a> {
    pub(super) config: &'a Arc<ExtensionsConfig>,
    pub(super) metrics: &'a Arc<ExtensionMetrics>,
    /// Where calls are recorded.
    pub(super) recorder: Option<&'a Arc<Recorder>>,
    pub(super) extension: &'a Arc<Extension>,
    pub(super) target: &'a Target,
    pub(super) series: &'a Arc<ExecutionSeries>,
    pub(super) record: CallRecord<'a>,
    pub(super) terms: Terms,
}

impl Attempt<'_> {
    /// Takes back the admission, because no call is made.
    pub(super) fn withdraw(&self) {
        let tenant = self.record.tenant_id;
        self.target.health.withdraw(self.terms.admitted, tenant);
    }

    /// Records a call for its author, where that is configured and its turn.
    pub(super) fn keep_for_author(&self, work: Work<'_>, output: &CallOutput<Raw>) {
        let Some(recorder) = self.recorder else { return };
        let id = &*self.extension.id;
        if recorder.wants(id, self.record.tenant_id, self.terms.now) {
            let of = (id, self.target.built.digest.to_string());
            recorder.record(RecordedCall::of(of, self.record, work, self.terms.env, output));
        }
    }
}

/// What is true of an attempt on every thread.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    pub(super) env: CallEnv,
    pub(super) now: Timestamp,
    pub(super) admitted: Admitted,
    pub(super) size: InputSize,
    /// For how long it may compute.
    pub(super) own_timeout_ms: u32,
    /// For how long it may, where the request's deadline leaves less; what it is told, and what a time-out reports.
    pub(super) timeout_ms: u32,
    /// How long the caller waits for it, whatever keeps it from computing.
    pub(super) patience: Duration,
    /// The number of this attempt, from 1.
    pub(super) attempts: u32,
    /// It was begun before, in the fast lane, and took too long for that.
    pub(super) overran: bool,
}
