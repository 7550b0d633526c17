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
mod write;

pub(in crate::extensions) use self::run::outcome;
pub use self::write::written;
pub use self::{
    case::{CaseCandidate, CaseDecision, CaseError, CaseFile, CaseIds, Expect, ExtensionCase, MessageValue},
    compare::{Difference, compare},
    mistake::Mistake,
    read::{read, read_candidates, read_decision, read_message, read_object, read_value},
    run::{CallSettings, CaseRun, FailedCall, Given, Outcome},
};

#[cfg(test)]
mod tests;
