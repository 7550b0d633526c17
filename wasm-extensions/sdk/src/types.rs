//! The data of the package `beamline:extension`, as Rust wants it.

use crate::Json;

/// The circumstances of one call.
#[derive(Debug, Clone, PartialEq)]
pub struct Call<C> {
    /// The tenant whose request this is. Never empty.
    pub tenant_id: String,
    /// The policy that names the extension. Never empty.
    pub policy_id: String,
    /// The trace the request belongs to; empty where it belongs to none.
    pub trace_id: String,
    /// The request; empty where the caller gave it no id.
    pub request_id: String,
    /// The whole context of the request: an object.
    pub context: Json,
    /// The extension's configuration: the registry's with the policy's laid over it.
    pub config: C,
    /// Milliseconds until the host ends the call; at least 1.
    pub remaining_ms: u32,
}

/// The message that is to be routed.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Empty where the caller gave it none.
    pub message_id: String,
    /// What kind of work it asks for, `unknown` where the caller did not say.
    pub message_type: String,
    /// What the provider is to work on: any JSON value, `null` where there is none.
    pub payload: Json,
    /// The rest of the envelope: an object.
    pub metadata: Json,
}

/// Why an extension could not do its work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// A short name in snake case, for metrics and explanations.
    pub code: String,
    /// One sentence for people, without personal data or secrets.
    pub message: String,
}

impl Failure {
    /// A failure named `code`.
    pub fn new(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
        }
    }
}

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Where: a JSON Pointer into the configuration, empty for the whole of it.
    pub path: String,
    /// What is wrong there, and what would be right.
    pub message: String,
}

impl Problem {
    /// A mistake at `path`.
    pub fn new(path: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            path: path.into(),
            message: message.into(),
        }
    }
}

/// What a pre-processor changes; the default changes nothing.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct PreOutput {
    /// Replaces the message.
    pub message: Option<Message>,
    /// Merged over the context, key by key: an object.
    pub context: Option<Json>,
}

/// A validator's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Verdict {
    /// The message may pass.
    Accept,
    /// It may not.
    Reject(Rejection),
}

impl Verdict {
    /// A rejection without details.
    pub fn reject(reason: impl Into<String>) -> Self {
        Self::Reject(Rejection {
            reason: reason.into(),
            details: Json::empty_object(),
        })
    }
}

/// Why a message may not pass.
#[derive(Debug, Clone, PartialEq)]
pub struct Rejection {
    /// One sentence for the caller, without personal data or secrets.
    pub reason: String,
    /// More for programs, under the same rule: an object.
    pub details: Json,
}

/// The state of a provider's circuit breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// A few requests pass, to see whether the provider has recovered.
    HalfOpen,
    /// No request passes; a candidate only where the policy ignores breakers.
    Open,
}

/// A provider that may be chosen, and what the host has seen of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Candidate {
    /// Unique within one call.
    pub provider_id: String,
    /// Its weight in the draw before scoring: finite, 0 or more.
    pub weight: f64,
    /// The state of its circuit breaker.
    pub breaker: BreakerState,
    /// Recent latency in milliseconds, 0 or more, where any was seen.
    pub latency_ms: Option<f64>,
    /// The share of recent calls that failed, from 0 to 1, where any was seen.
    pub error_rate: Option<f64>,
    /// Expected cost of one request, 0 or more, where known.
    pub cost: Option<f64>,
}

/// What a scorer makes of one candidate.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// The candidate.
    pub provider_id: String,
    /// Its weight is multiplied by this: finite, 0 or more.
    pub factor: f64,
}

/// The decision that was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Decision {
    /// The provider that was chosen.
    pub provider_id: String,
    /// How: `sticky`, `weighted`, `retry`, `fallback` and the like.
    pub reason: String,
    /// 100 sticky, 50 weighted, 25 fallback, 20 breaker fallback.
    pub priority: u32,
}
