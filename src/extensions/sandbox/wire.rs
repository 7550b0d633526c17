//! The data of the WIT package `beamline:extension@0.1.0` as this side writes and reads it. The package itself is in
//! `wasm-extensions/wit`; a component whose types differ is refused when it is prepared.

use wasmtime::component::{ComponentType, Lift, Lower};

/// `types.call`.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub struct CallRecord<'a> {
    /// The tenant of the request.
    #[component(name = "tenant-id")]
    pub tenant_id: &'a str,
    /// The policy that names the extension.
    #[component(name = "policy-id")]
    pub policy_id: &'a str,
    /// The trace of the request; may be empty.
    #[component(name = "trace-id")]
    pub trace_id: &'a str,
    /// The id of the request; may be empty.
    #[component(name = "request-id")]
    pub request_id: &'a str,
    /// The context of the request: a JSON object.
    pub context: &'a str,
    /// The configuration of the extension: a JSON object.
    pub config: &'a str,
    /// The time that the call may take, in milliseconds.
    #[component(name = "remaining-ms")]
    pub remaining_ms: u32,
}

/// `types.message`, going out.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub struct MessageRecord<'a> {
    /// Its id; may be empty.
    #[component(name = "message-id")]
    pub message_id: &'a str,
    /// Its type.
    #[component(name = "message-type")]
    pub message_type: &'a str,
    /// Its payload: JSON.
    pub payload: &'a str,
    /// Its other fields: a JSON object.
    pub metadata: &'a str,
}

/// `types.message`, coming back.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct NewMessage {
    /// Its id; empty: unchanged.
    #[component(name = "message-id")]
    pub message_id: String,
    /// Its type.
    #[component(name = "message-type")]
    pub message_type: String,
    /// Its payload: JSON.
    pub payload: String,
    /// Its other fields: a JSON object.
    pub metadata: String,
}

/// `types.failure`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct GuestFailure {
    /// A name for machines.
    pub code: String,
    /// A text for people.
    pub message: String,
}

/// `types.problem`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct ConfigProblem {
    /// The place in the configuration: a JSON Pointer.
    pub path: String,
    /// What is wrong there, for people.
    pub message: String,
}

/// `types.pre-output`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct PreOutput {
    /// The message in place of the one it was given.
    pub message: Option<NewMessage>,
    /// What is added to the context: a JSON object.
    pub context: Option<String>,
}

/// `types.verdict`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(variant)]
pub enum WireVerdict {
    /// The message may pass.
    #[component(name = "accept")]
    Accept,
    /// The message must not pass.
    #[component(name = "reject")]
    Reject(Rejection),
}

/// `types.rejection`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct Rejection {
    /// Why, for people.
    pub reason: String,
    /// More about it: a JSON object.
    pub details: String,
}

/// `types.breaker-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum BreakerState {
    /// The provider is called.
    #[component(name = "closed")]
    Closed,
    /// The provider is tried.
    #[component(name = "half-open")]
    HalfOpen,
    /// The provider is not called.
    #[component(name = "open")]
    Open,
}

/// `types.candidate`.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub struct CandidateRecord<'a> {
    /// The id of the provider.
    #[component(name = "provider-id")]
    pub provider_id: &'a str,
    /// Its weight in the policy.
    pub weight: f64,
    /// The state of its breaker.
    pub breaker: BreakerState,
    /// Its latency, in milliseconds, where it is known.
    #[component(name = "latency-ms")]
    pub latency_ms: Option<f64>,
    /// The share of its calls that fail, where it is known.
    #[component(name = "error-rate")]
    pub error_rate: Option<f64>,
    /// What a call of it costs, where it is known.
    pub cost: Option<f64>,
}

/// `types.score`.
#[derive(Debug, Clone, PartialEq, ComponentType, Lift)]
#[component(record)]
pub struct WireScore {
    /// The id of the candidate.
    #[component(name = "provider-id")]
    pub provider_id: String,
    /// What its weight is multiplied by.
    pub factor: f64,
}

/// `types.decision`.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub struct DecisionRecord<'a> {
    /// The chosen provider.
    #[component(name = "provider-id")]
    pub provider_id: &'a str,
    /// Why it was chosen.
    pub reason: &'a str,
    /// The priority of the decision.
    pub priority: u32,
}

/// `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, serde::Serialize)]
#[component(enum)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum LogLevel {
    /// For developers.
    #[component(name = "debug")]
    Debug,
    /// For information.
    #[component(name = "info")]
    Info,
    /// Something unexpected.
    #[component(name = "warn")]
    Warn,
    /// Something that must be corrected.
    #[component(name = "error")]
    Error,
}
