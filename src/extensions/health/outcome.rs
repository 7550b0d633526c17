//! How a call is admitted, how it ends, and what that changes.

use std::time::Duration;

use crate::extensions::{sandbox::CrashReport, scheduling::Place};

/// A call that was admitted: where it runs, and what its outcome decides. That of a call which began earlier decides nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) struct Admitted {
    pub(in crate::extensions) place: Place,
    /// It needs to be checked only seldom.
    pub(in crate::extensions) is_trusted: bool,
    /// What the last call of its tenant computed.
    pub(in crate::extensions) last_ran: Option<Duration>,
    /// Whether a quarantine ends.
    pub(super) probe: bool,
    /// Whether a half-open breaker closes.
    pub(super) trial: bool,
    /// Whether a quarantine for all tenants ends.
    pub(super) common_probe: bool,
}

/// Why an extension may not be called now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) enum Blocked {
    BreakerOpen,
    Quarantined,
}

/// How a call ended, as far as health depends on it.
#[derive(Debug)]
pub(in crate::extensions) enum CallOutcome<'a> {
    Success,
    Failure,
    /// It computed for as long as it may, and did not end.
    Timeout,
    Crash(&'a CrashReport),
}

/// A change that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) enum Change {
    BreakerOpened,
    BreakerClosed,
    /// For the tenant of the call.
    Quarantined {
        pause: Duration,
    },
    /// For all tenants.
    QuarantinedForAll {
        pause: Duration,
    },
    Released,
}

/// What a call took.
#[derive(Debug, Clone, Copy)]
pub(in crate::extensions) struct Cost {
    pub(in crate::extensions) took: Duration,
    /// For how long it computed.
    pub(in crate::extensions) computed: Duration,
    /// The same, where that says where its next call is to run.
    pub(in crate::extensions) ran: Option<Duration>,
    pub(in crate::extensions) memory_bytes: usize,
}

/// What a call changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::extensions) struct Recorded {
    pub(in crate::extensions) change: Option<Change>,
    /// Where the calls of its tenant run from now on.
    pub(in crate::extensions) moved: Option<Place>,
}
