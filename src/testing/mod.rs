//! Decision cases: what a policy is to decide, written down as data and tried on the real core.
//!
//! A case names a policy, what is remembered, a request, a seed and a time, and the result that is wanted. Steps of one
//! case share their memory, so that a retry chain or a session is a case as well.

mod case;
mod compare;
mod judge;
mod run;
mod setting;
#[cfg(test)]
mod tests;

pub use self::{
    case::{
        Case, CaseError, CaseLimit, CaseMemory, CaseResult, CaseRules, CaseSession, Distribution, Step, Want,
        WantedMemory, WantedSession, load,
    },
    run::{Decide, Mismatch, run, run_by},
    setting::remembered,
};
