//! Cases of an extension: what it is called with and what must come of it, written down as data. The same file holds for
//! an extension whatever it is written in.
//!
//! [`read`] reads them and tells every mistake with its place, [`DecideContext::run`] calls the extension, [`judge`]
//! compares.

mod judge;
mod read;
mod run;
mod tree;

use std::collections::BTreeMap;

use serde_json::{Map, Value};

pub use self::{
    judge::{Difference, judge},
    read::{Mistake, read},
    run::{CaseRun, DecideContext, FailedCall, Given, MessageValue, Outcome},
};
use super::{BreakerState, Kind};

/// The cases of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseFile {
    pub kind: Kind,
    pub cases: Vec<ExtensionCase>,
}

/// One call, and what must come of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtensionCase {
    /// What it shows, in a sentence.
    pub name: String,
    /// Where it begins in its file.
    pub line: u64,
    pub message: MessageValue,
    /// The request's context; its `tenant_id` is the call's.
    pub context: Map<String, Value>,
    pub config: Map<String, Value>,
    /// What a scorer chooses from.
    pub candidates: Vec<CaseCandidate>,
    /// What a post-processor is told.
    pub decision: CaseDecision,
    /// What `clock` says, in milliseconds since 1970.
    pub now_ms: u64,
    /// What `random` begins with.
    pub seed: u64,
    pub expect: Expect,
}

#[derive(Debug, Clone, PartialEq)]
pub struct CaseCandidate {
    pub provider_id: String,
    pub weight: f64,
    pub breaker: BreakerState,
    pub latency_ms: Option<f64>,
    pub error_rate: Option<f64>,
    pub cost: Option<f64>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseDecision {
    pub provider_id: String,
    pub reason: String,
    pub priority: u32,
}

impl Default for CaseDecision {
    fn default() -> Self {
        Self {
            provider_id: "provider".to_owned(),
            reason: "weighted".to_owned(),
            priority: 50,
        }
    }
}

/// What must come of a case. What is named must be equal, numbers up to rounding.
#[derive(Debug, Clone, PartialEq)]
pub enum Expect {
    Accept,
    Reject {
        reason: Option<String>,
        details: Option<Value>,
    },
    /// The code of a failure that the extension reports.
    Failure(String),
    /// The places of all problems that `check-config` tells, in any order.
    ConfigProblems(Vec<String>),
    /// What a pre-processor makes of the message and adds to the context. What is not named is unchanged.
    Changed {
        /// Fields of the message.
        message: Map<String, Value>,
        context: Map<String, Value>,
    },
    /// A factor for each candidate, within 1e-6.
    Scores(BTreeMap<String, f64>),
    /// What a post-processor adds to the decision.
    Metadata(Map<String, Value>),
    /// The host ends the call, or cannot use its answer.
    Error(CaseError),
}

/// How a call fails that the extension does not end itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseError {
    Timeout,
    Trap,
    Memory,
    Table,
    Output,
}

impl CaseError {
    const ALL: [Self; 5] = [Self::Timeout, Self::Trap, Self::Memory, Self::Table, Self::Output];

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Trap => "trap",
            Self::Memory => "memory",
            Self::Table => "table",
            Self::Output => "output",
        }
    }
}

#[cfg(test)]
mod tests;
