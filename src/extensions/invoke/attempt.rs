//! One attempt to call an extension: everything about it, borrowed from the caller.

use std::{sync::Arc, time::Duration};

use super::input::InputSize;
use crate::{
    clock::Timestamp,
    extensions::{
        config::ExtensionsConfig,
        health::Admitted,
        metrics::{ExecutionSeries, ExtensionMetrics},
        registry::{Extension, Target},
        sandbox::{CallEnv, CallRecord},
    },
};

/// One attempt, on whichever thread.
pub(super) struct Attempt<'a> {
    pub(super) config: &'a Arc<ExtensionsConfig>,
    pub(super) metrics: &'a Arc<ExtensionMetrics>,
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
