//! The error body of the contracts, as a schema.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};

/// What every failure is answered with.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Error")]
pub(super) struct ErrorBody {
    /// `false`.
    #[schemars(extend("const" = false))]
    pub(super) ok: bool,
    pub(super) error: ErrorDetail,
    pub(super) context: ErrorContext,
}

/// What is wrong.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ErrorDetail {
    /// The name of the error; see the documentation of the path.
    pub(super) code: String,
    /// A sentence for a person.
    pub(super) message: String,
    pub(super) details: Map<String, Value>,
    /// The family of a refused request for a decision.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) intake_error_code: Option<String>,
}

/// The ids of the request, as far as they are known.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct ErrorContext {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) trace_id: Option<String>,
}
