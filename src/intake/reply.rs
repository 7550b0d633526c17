//! A decision as JSON, the same for every transport that answers in JSON (contract: messaging 2.2).

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;

use super::decide::Decided;
use crate::{
    decide::{Context, Explanation, Metadata},
    failure::{ErrorCode, Failure},
    policy::exact,
};

/// The answer to a request for a decision.
#[derive(Serialize, JsonSchema)]
struct Reply<'a> {
    /// `true`.
    #[schemars(extend("const" = true))]
    ok: bool,
    decision: ReplyDecision<'a>,
    context: ReplyContext<'a>,
}

/// Where the request goes.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Decision")]
struct ReplyDecision<'a> {
    provider_id: &'a str,
    #[schemars(extend("enum" = [100, 50, 25, 20]))]
    priority: u8,
    expected_latency_ms: u64,
    expected_cost: f64,
    #[schemars(extend("enum" = ["sticky", "weighted", "retry", "fallback", "circuit_breaker_fallback"]))]
    reason: &'static str,
    /// The request's context with what the decision adds to it.
    #[schemars(with = "Context")]
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a Explanation>,
}

/// The ids of the request.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "DecisionContext")]
struct ReplyContext<'a> {
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}

impl JsonSchema for Decided<'_> {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "DecideResponse".into()
    }

    /// Of what [`to_json`](Self::to_json) writes.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Reply::json_schema(generator)
    }
}

impl Decided<'_> {
    /// `{"ok":true,"decision":{…},"context":{…}}`.
    ///
    /// # Errors
    /// `internal_error` where the answer cannot be written, which only a bug can cause.
    pub fn to_json(&self) -> Result<Vec<u8>, Failure> {
        let how = &self.decision.selection.how;
        let reply = Reply {
            ok: true,
            decision: ReplyDecision {
                provider_id: self.decision.selection.provider.as_str(),
                priority: how.priority(),
                expected_latency_ms: self.expected_latency_ms,
                expected_cost: self.expected_cost,
                reason: how.reason(),
                metadata: Metadata {
                    context: &self.context,
                    extras: &self.extras,
                },
                explanation: self.explanation.as_ref(),
            },
            context: ReplyContext {
                request_id: &self.request.request_id,
                trace_id: self.request.trace_id.as_deref(),
            },
        };
        let fails = |error: serde_json::Error| Failure::new(ErrorCode::InternalError, error.to_string());
        if self.request.has_long_integers {
            let text = serde_json::to_string(&reply).map_err(fails)?;
            return Ok(exact::written(text).into());
        }
        serde_json::to_vec(&reply).map_err(fails)
    }
}
