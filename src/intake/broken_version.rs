//! What answers and the log say of a decision whose policy is broken.

use std::fmt;

use crate::{policy::errors, snapshot::BrokenPolicy};

/// A policy's newest version that a write would refuse.
#[derive(Debug)]
pub(super) struct BrokenVersion {
    pub(super) broken: BrokenPolicy,
    /// Whether the last good version decides in its place.
    pub(super) is_replaced: bool,
}

impl fmt::Display for BrokenVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let decides = if self.is_replaced {
            "its last good version decides"
        } else {
            "it decides by what can be read of it"
        };
        write!(f, "the policy is broken, {decides}")?;
        let problems = self.broken.problems();
        let mut errors = errors(&problems);
        if let Some(first) = errors.next() {
            write!(f, ": {first}")?;
        }
        match errors.count() {
            0 => Ok(()),
            more => write!(f, " (and {more} more)"),
        }
    }
}
