//! A case as data.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::extensions::sandbox::{BreakerState, Kind};

/// The cases of a file.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseFile {
    /// The kind of the extension.
    pub kind: Kind,
    /// Its cases, in the order of the file.
    pub cases: Vec<ExtensionCase>,
}

/// One call, and what must come of it.
#[derive(Debug, Clone, PartialEq)]
pub struct ExtensionCase {
    /// What it shows, in a sentence.
    pub name: String,
    /// The line where it begins in its file, from 1.
    pub line: u64,
    /// The message of the request.
    pub message: MessageValue,
    /// The request's context; its `tenant_id` is the call's.
    pub context: Map<String, Value>,
    /// The configuration of the extension.
    pub config: Map<String, Value>,
    /// What a scorer chooses from.
    pub candidates: Vec<CaseCandidate>,
    /// What a post-processor is given.
    pub decision: CaseDecision,
    /// What `clock` returns: Unix milliseconds.
    pub now_ms: u64,
    /// What `random` begins with.
    pub seed: u64,
    /// The ids that the call is told.
    pub ids: CaseIds,
    /// What must come of it.
    pub expect: Expect,
}

/// The ids that a call is told, besides its tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseIds {
    /// The policy that names the extension.
    pub policy_id: String,
    /// The trace; may be empty.
    pub trace_id: String,
    /// The request; may be empty.
    pub request_id: String,
}

impl Default for CaseIds {
    fn default() -> Self {
        Self {
            policy_id: "policy".to_owned(),
            trace_id: "trace".to_owned(),
            request_id: "request".to_owned(),
        }
    }
}

/// A provider that a scorer may weigh.
#[derive(Debug, Clone, PartialEq)]
pub struct CaseCandidate {
    /// Its id.
    pub provider_id: String,
    /// Its weight in the policy.
    pub weight: f64,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// Its latency, in milliseconds, where it is known.
    pub latency_ms: Option<f64>,
    /// The share of its calls that fail, where it is known.
    pub error_rate: Option<f64>,
    /// What a call of it costs, where it is known.
    pub cost: Option<f64>,
}

/// The decision that a post-processor is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaseDecision {
    /// The chosen provider.
    pub provider_id: String,
    /// Why it was chosen.
    pub reason: String,
    /// The priority of the decision.
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
    /// A validator accepts the message.
    Accept,
    /// A validator rejects the message.
    Reject {
        /// The reason, if the case names one.
        reason: Option<String>,
        /// The details, if the case names any.
        details: Option<Value>,
    },
    /// The code of a failure that the extension reports.
    Failure(String),
    /// The places of all problems that `check-config` reports, in any order.
    ConfigProblems(Vec<String>),
    /// What a pre-processor makes of the message and adds to the context. What is not named is unchanged.
    Changed {
        /// Fields of the message.
        message: Map<String, Value>,
        /// What is added to the context.
        context: Map<String, Value>,
    },
    /// A factor for each candidate, within 1e-6.
    Scores(BTreeMap<String, f64>),
    /// What a post-processor adds to the decision.
    Metadata(Map<String, Value>),
    /// The host ends the call, or cannot use its answer.
    Error(CaseError),
}

/// How a call fails that the host ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CaseError {
    /// It takes too long.
    Timeout,
    /// It crashes.
    Trap,
    /// It computes more than its fuel lets it.
    Fuel,
    /// It needs too much memory.
    Memory,
    /// It needs too large a table.
    Table,
    /// Its answer is too large, or not valid.
    Output,
}

impl CaseError {
    pub(super) const ALL: [Self; 6] = [
        Self::Timeout,
        Self::Trap,
        Self::Fuel,
        Self::Memory,
        Self::Table,
        Self::Output,
    ];

    /// As cases name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Trap => "trap",
            Self::Fuel => "fuel",
            Self::Memory => "memory",
            Self::Table => "table",
            Self::Output => "output",
        }
    }
}

/// A message as an object.
#[derive(Debug, Clone, PartialEq)]
pub struct MessageValue {
    /// Its id; may be empty.
    pub message_id: String,
    /// Its type.
    pub message_type: String,
    /// Its payload.
    pub payload: Value,
    /// Its other fields.
    pub metadata: Map<String, Value>,
}

impl Default for MessageValue {
    fn default() -> Self {
        Self {
            message_id: String::new(),
            message_type: "unknown".to_owned(),
            payload: Value::Null,
            metadata: Map::new(),
        }
    }
}
