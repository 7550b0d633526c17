//! Calls that take turns: more may have begun than compute.

use std::{fmt, time::Instant};

/// Whose turn it is. A call asks on its own thread, each time that the clock finds it computing.
pub(in crate::extensions) trait Turns: fmt::Debug + Send + Sync {
    /// Returns at once while it is the call's turn, and otherwise when it is again, or at this time.
    fn wait(&self, until: Instant) -> Go;
}

/// What a call does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) enum Go {
    /// It goes on.
    On,
    /// It was not its turn until it is not waited for any longer.
    Late,
    /// It makes room for another.
    Away,
}
