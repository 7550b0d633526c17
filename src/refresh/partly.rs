//! A refresh that asks for its parts one by one, some of which HEIR may refuse.

use std::fmt::{Display, Write as _};

use super::outcome::RefreshError;
use crate::snapshot::Unconfirmed;

/// Failed parts that are named; the others are counted.
const NAMED: usize = 3;

/// What has become of the parts so far.
#[derive(Debug)]
pub(super) struct Partly {
    parts: usize,
    /// What the parts are, in the plural.
    what: &'static str,
    confirmed: usize,
    unconfirmed: Vec<Unconfirmed>,
    named: String,
    first_error: Option<RefreshError>,
}

impl Partly {
    /// Of so many parts nothing is known yet.
    pub(super) fn of(parts: usize, what: &'static str) -> Self {
        Self {
            parts,
            what,
            confirmed: 0,
            unconfirmed: Vec::new(),
            named: String::new(),
            first_error: None,
        }
    }

    /// HEIR has said what it has of one part.
    pub(super) fn confirmed(&mut self) {
        self.confirmed += 1;
    }

    /// Whether HEIR has said what it has of any part.
    pub(super) fn any_confirmed(&self) -> bool {
        self.confirmed > 0
    }

    /// HEIR has not said what it has of one part.
    pub(super) fn failed(&mut self, part: Unconfirmed, name: impl Display, error: RefreshError) {
        if self.unconfirmed.len() < NAMED {
            // Writing to a text does not fail.
            let _infallible = write!(self.named, "; {name}: {}", error.chain());
        }
        self.unconfirmed.push(part);
        self.first_error.get_or_insert(error);
    }

    /// The parts that HEIR has not confirmed.
    pub(super) fn unconfirmed(&self) -> &[Unconfirmed] {
        &self.unconfirmed
    }

    /// What could not be refreshed, as a sentence, if anything.
    pub(super) fn summary(&self) -> Option<String> {
        let failed = self.unconfirmed.len();
        let more = failed.saturating_sub(NAMED);
        let more = if more > 0 {
            format!("; and {more} more")
        } else {
            String::new()
        };
        let Self {
            parts, what, named, ..
        } = self;
        (failed > 0).then(|| format!("{failed} of {parts} {what} could not be refreshed{named}{more}"))
    }

    /// The first failure, where nothing succeeded.
    pub(super) fn take_error(&mut self) -> Result<(), RefreshError> {
        self.first_error.take().map_or(Ok(()), Err)
    }
}
