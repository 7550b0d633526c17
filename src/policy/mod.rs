//! The documents of the policy language, and the ids of tenants and policies.
//!
//! A policy is kept exactly as HEIR stored it, byte for byte: deprecated and unknown fields included. The checks
//! here ensure that it is one JSON object that every reader understands in the same way.

mod condition;
mod document;
mod etag;
pub mod exact;
mod ids;
pub mod json_path;
mod position;
mod read;
mod refusal;
mod routing;
mod schema;
mod write_out;

pub use condition::{Condition, ConditionRules, Facts};
pub use document::{MAX_DEPTH, PolicyDocument, Problem, Severity, errors};
pub use etag::ETag;
pub use ids::{InvalidId, MAX_ID_BYTES, PolicyId, TenantId, check_id};
pub use position::{Position, locate};
pub use read::{check, read, read_exact, read_for_routing, read_object};
pub use refusal::{Reason, Refusal, refuse_document, refuse_id, refuse_record, refuse_sticky, refuse_value};
pub use routing::{
    Backoff, BreakerSettings, Deprecated, DetailLevel, FallbackRule, HealthCheck, Item, LimitScope,
    MAX_PROVIDER_BYTES, Mode, OnFail, Pipeline, Processor, Provider, ProviderId, RateLimit, RoutingPolicy,
    Sticky, Strategy, Validator,
};
pub use schema::schema;
