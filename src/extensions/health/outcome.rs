//! How a call is admitted, how it ends, and what that changes.

use std::time::Duration;

use crate::extensions::sandbox::CrashReport;

/// A call that was admitted, and what its outcome decides. That of a call which began earlier decides neither.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(in crate::extensions) struct Admitted {
    /// Whether a quarantine ends.
    pub(super) probe: bool,
    /// Whether a half-open breaker closes.
    pub(super) trial: bool,
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
    Crash(&'a CrashReport),
}

/// A change that is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) enum Change {
    BreakerOpened,
    BreakerClosed,
    Quarantined { pause: Duration },
    Released,
}
