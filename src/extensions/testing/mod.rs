//! Cases of an extension: what it is called with and what must come of it, written down as data. The same file holds for
//! an extension in any language.
//!
//! [`read`] reads them and reports every mistake with its place, [`CallSettings::run`] calls the extension, [`compare`]
//! compares.

mod case;
mod compare;
mod mistake;
mod read;
mod run;
mod tree;

pub use self::{
    case::{CaseCandidate, CaseDecision, CaseError, CaseFile, Expect, ExtensionCase, MessageValue},
    compare::{Difference, compare},
    mistake::Mistake,
    read::read,
    run::{CallSettings, CaseRun, FailedCall, Given, Outcome},
};

#[cfg(test)]
mod tests;
