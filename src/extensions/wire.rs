//! The data of the WIT package `beamline:extension@0.1.0` as this side writes and reads it. The package itself is in
//! `wasm-extensions/wit`; a component whose types differ is refused when it is prepared.

use wasmtime::component::{ComponentType, Lift, Lower};

/// `types.call`.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub struct CallRecord<'a> {
    #[component(name = "tenant-id")]
    pub tenant_id: &'a str,
    #[component(name = "policy-id")]
    pub policy_id: &'a str,
    #[component(name = "trace-id")]
    pub trace_id: &'a str,
    #[component(name = "request-id")]
    pub request_id: &'a str,
    pub context: &'a str,
    pub config: &'a str,
    #[component(name = "remaining-ms")]
    pub remaining_ms: u32,
}

/// `types.message`, going out.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub struct MessageRecord<'a> {
    #[component(name = "message-id")]
    pub message_id: &'a str,
    #[component(name = "message-type")]
    pub message_type: &'a str,
    pub payload: &'a str,
    pub metadata: &'a str,
}

/// `types.message`, coming back.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct NewMessage {
    #[component(name = "message-id")]
    pub message_id: String,
    #[component(name = "message-type")]
    pub message_type: String,
    pub payload: String,
    pub metadata: String,
}

/// `types.failure`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct GuestFailure {
    pub code: String,
    pub message: String,
}

/// `types.problem`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct ConfigProblem {
    pub path: String,
    pub message: String,
}

/// `types.pre-output`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct PreOutput {
    pub message: Option<NewMessage>,
    pub context: Option<String>,
}

/// `types.verdict`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(variant)]
pub enum WireVerdict {
    #[component(name = "accept")]
    Accept,
    #[component(name = "reject")]
    Reject(Rejection),
}

/// `types.rejection`.
#[derive(Debug, Clone, PartialEq, Eq, ComponentType, Lift)]
#[component(record)]
pub struct Rejection {
    pub reason: String,
    pub details: String,
}

/// `types.breaker-state`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lower)]
#[component(enum)]
#[repr(u8)]
pub enum BreakerState {
    #[component(name = "closed")]
    Closed,
    #[component(name = "half-open")]
    HalfOpen,
    #[component(name = "open")]
    Open,
}

/// `types.candidate`.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub struct CandidateRecord<'a> {
    #[component(name = "provider-id")]
    pub provider_id: &'a str,
    pub weight: f64,
    pub breaker: BreakerState,
    #[component(name = "latency-ms")]
    pub latency_ms: Option<f64>,
    #[component(name = "error-rate")]
    pub error_rate: Option<f64>,
    pub cost: Option<f64>,
}

/// `types.score`.
#[derive(Debug, Clone, PartialEq, ComponentType, Lift)]
#[component(record)]
pub struct WireScore {
    #[component(name = "provider-id")]
    pub provider_id: String,
    pub factor: f64,
}

/// `types.decision`.
#[derive(Debug, Clone, Copy, ComponentType, Lower)]
#[component(record)]
pub struct DecisionRecord<'a> {
    #[component(name = "provider-id")]
    pub provider_id: &'a str,
    pub reason: &'a str,
    pub priority: u32,
}

/// `log.level`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ComponentType, Lift, serde::Serialize)]
#[component(enum)]
#[serde(rename_all = "lowercase")]
#[repr(u8)]
pub enum LogLevel {
    #[component(name = "debug")]
    Debug,
    #[component(name = "info")]
    Info,
    #[component(name = "warn")]
    Warn,
    #[component(name = "error")]
    Error,
}
