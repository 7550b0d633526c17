//! The interface to extensions: what a pipeline passes to them and what it gets back. How one runs is hidden behind it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{DecideContext, Envelope, Replacement, RequestContext, Stage, memory::State};
use crate::policy::{PolicyId, ProviderId, TenantId};

/// Runs extensions. Implemented by [`NoExtensions`], by [`Scripted`] for authors' tests, and by the host of real ones.
pub trait Extensions: Sync {
    /// Runs one extension to its end or its limit.
    fn call(&self, call: &Call<'_>) -> impl Future<Output = Result<Answer, ExtensionError>> + Send;
}

/// Extensions whose calls never wait, so that a decision with them is available [at once](super::decide_now).
pub trait Immediate: Extensions {}

/// One call.
#[derive(Debug, Clone, Copy)]
pub struct Call<'a> {
    /// The list that names the extension.
    pub stage: Stage,
    /// The extension's id in the registry.
    pub id: &'a str,
    /// The tenant whose request is decided.
    pub tenant: &'a TenantId,
    /// The policy that names the extension.
    pub policy_id: &'a PolicyId,
    /// What the extension works on, by its stage.
    pub input: Input<'a>,
    /// The whole context.
    pub around: &'a RequestContext<'a>,
    /// The policy item's configuration, to be laid over the registry record's.
    pub config: &'a Map<String, Value>,
    /// The policy item's overrides.
    pub timeout_ms: Option<u32>,
    /// Repetitions after a time-out. `None`: as the registry's record has it.
    pub retry: Option<u32>,
    /// The id, seed and time of the decision.
    pub at: DecideContext<'a>,
}

/// What an extension is given to work on.
#[derive(Debug, Clone, Copy)]
pub enum Input<'a> {
    /// A pre-processor or a validator has the message.
    Message(&'a Envelope<'a>),
    /// A scorer has the providers that may be drawn besides.
    Candidates(&'a Envelope<'a>, &'a [ScoredProvider<'a>]),
    /// A post-processor has the decision: `provider_id`, `reason`, `priority`.
    Decision(&'a Value),
}

impl Input<'_> {
    /// As the platform sends it.
    pub fn to_value(&self) -> Value {
        match self {
            Self::Message(message) | Self::Candidates(message, _) => message.to_value().into_owned(),
            Self::Decision(decision) => (*decision).clone(),
        }
    }
}

/// A provider that may be drawn, and what is known of it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScoredProvider<'a> {
    /// Its name in the policy.
    pub provider: &'a ProviderId,
    /// Its weight in the policy, above zero.
    pub weight: f64,
    /// The state of its breaker; closed if it has none.
    pub breaker: State,
    /// Average milliseconds of its calls. `None`: no result had a latency yet.
    pub latency_ms: Option<f64>,
    /// 0–1.
    pub error_rate: Option<f64>,
    /// Average cost of its calls, in the unit of the results. `None`: no result had a cost yet.
    pub cost: Option<f64>,
}

/// What an extension answered.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Answer {
    /// What a pre-processor puts in place of the message, or a post-processor hands to the next one.
    pub payload: Option<Replacement>,
    /// Entries for the context from a pre-processor, for the decision's metadata from a post-processor.
    pub metadata: Map<String, Value>,
    /// A scorer's factors: finite, 0 or more, one for each candidate in their order.
    pub factors: Option<Vec<f64>>,
    /// A validator's verdict.
    pub verdict: Verdict,
}

/// Whether a validator lets the request pass.
#[derive(Debug, Clone, PartialEq, Default)]
pub enum Verdict {
    /// It passes.
    #[default]
    Accept,
    /// It is refused, subject to the policy's `on_fail`.
    Reject {
        /// One line for the client. `None`: a general sentence is used.
        reason: Option<Box<str>>,
        /// Entries of the error's `details.details`.
        details: Map<String, Value>,
    },
}

impl Answer {
    /// Reads an answer in the platform's JSON. Both dialects of a verdict count: whichever rejects, rejects.
    pub fn parse(answer: Value) -> Result<Self, ExtensionError> {
        let Value::Object(mut answer) = answer else {
            return Err(ExtensionError::InvalidResponse);
        };
        if let Some(error) = answer.get("error").and_then(Value::as_object) {
            let text = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
            return Err(ExtensionError::Invocation {
                reason: format!("{}: {}", text("code"), text("message")).into(),
            });
        }
        let object = |value: Option<Value>| match value {
            Some(Value::Object(object)) => object,
            _ => Map::new(),
        };
        let rejects = answer.get("valid") == Some(&Value::Bool(false))
            || answer.get("status").and_then(Value::as_str) == Some("reject");
        let verdict = if rejects {
            Verdict::Reject {
                reason: answer.get("reason").and_then(Value::as_str).map(Into::into),
                details: object(answer.remove("details")),
            }
        } else {
            Verdict::Accept
        };
        Ok(Self {
            payload: answer.remove("payload").map(Replacement::Json),
            metadata: object(answer.remove("metadata")),
            factors: None,
            verdict,
        })
    }
}

/// Why an extension gave no answer.
#[derive(Debug, Clone, PartialEq)]
pub enum ExtensionError {
    /// The registry has no extension of this id, or none of its variants applies to the request.
    NotFound,
    /// No attempt ended in time.
    Timeout {
        /// Milliseconds that the last attempt had.
        timeout_ms: u32,
        /// Calls made, the first one included.
        attempts: u32,
    },
    /// Its breaker is open.
    CircuitOpen,
    /// It answered with an error.
    Invocation {
        /// The error's code and message.
        reason: Box<str>,
    },
    /// Its answer does not have the form that its stage requires.
    InvalidResponse,
    /// The payload exceeds its limit; the extension was not called.
    PayloadTooLarge {
        /// Bytes of the payload.
        size: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// The context exceeds its limit; the extension was not called.
    MetadataTooLarge {
        /// Bytes of the context.
        size: usize,
        /// Bytes that are allowed.
        max: usize,
    },
    /// The time-out asked for is outside [`TIMEOUT_MS`].
    TimeoutOutOfRange {
        /// Milliseconds asked for.
        timeout_ms: u32,
    },
    /// More repetitions asked for than [`MAX_RETRIES`].
    TooManyRetries {
        /// Repetitions asked for.
        retry: u32,
    },
    /// Too many calls of it are under way, or of all of them.
    Unavailable,
    /// It crashed too often and rests.
    Quarantined,
    /// It crashed.
    Trap {
        /// What the sandbox reports, in one line.
        reason: Box<str>,
    },
    /// It wanted more memory, or larger tables, than it may have.
    MemoryLimit,
    /// It computed more than its record lets it.
    FuelLimit,
    /// It answered more than it may.
    OutputLimit {
        /// The limit that was exceeded, in one line.
        reason: Box<str>,
    },
    /// It said that it cannot do its work.
    Failure {
        /// The extension's own code.
        code: Box<str>,
        /// The extension's own text, in one line.
        message: Box<str>,
    },
    /// It is registered as something else than the list that names it.
    WrongKind {
        /// The kind that it is registered as.
        kind: &'static str,
    },
}

/// Longest payload of one call, in bytes of JSON; this and the limits below hold for every implementation.
pub const MAX_PAYLOAD_BYTES: usize = 1_048_576;
/// Longest context of one call, in bytes of JSON.
pub const MAX_METADATA_BYTES: usize = 65_536;
/// Milliseconds that the time-out of one attempt may have.
pub const TIMEOUT_MS: std::ops::RangeInclusive<u32> = 10..=5_000;
/// Most repetitions of a call after a time-out.
pub const MAX_RETRIES: u32 = 3;

/// Checks what is asked of an extension against the limits. A value that equals its limit passes.
pub fn check_call(
    payload_bytes: usize,
    metadata_bytes: usize,
    timeout_ms: u32,
    retry: u32,
) -> Result<(), ExtensionError> {
    if payload_bytes > MAX_PAYLOAD_BYTES {
        return Err(ExtensionError::PayloadTooLarge {
            size: payload_bytes,
            max: MAX_PAYLOAD_BYTES,
        });
    }
    if metadata_bytes > MAX_METADATA_BYTES {
        return Err(ExtensionError::MetadataTooLarge {
            size: metadata_bytes,
            max: MAX_METADATA_BYTES,
        });
    }
    if !TIMEOUT_MS.contains(&timeout_ms) {
        return Err(ExtensionError::TimeoutOutOfRange { timeout_ms });
    }
    if retry > MAX_RETRIES {
        return Err(ExtensionError::TooManyRetries { retry });
    }
    Ok(())
}

impl ExtensionError {
    /// The platform's name for it.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::NotFound => "extension_not_found",
            Self::Timeout { .. } => "extension_timeout",
            Self::CircuitOpen => "extension_circuit_open",
            Self::Invocation { .. } => "extension_invocation_error",
            Self::InvalidResponse => "invalid_response_format",
            Self::PayloadTooLarge { .. } => "payload_too_large",
            Self::MetadataTooLarge { .. } => "metadata_too_large",
            Self::TimeoutOutOfRange { .. } => "timeout_out_of_range",
            Self::TooManyRetries { .. } => "retry_limit_exceeded",
            Self::Unavailable => "extension_unavailable",
            Self::Quarantined => "extension_quarantined",
            Self::Trap { .. } => "extension_trap",
            Self::MemoryLimit => "extension_memory_limit",
            Self::FuelLimit => "extension_fuel_limit",
            Self::OutputLimit { .. } => "extension_output_limit",
            Self::Failure { .. } => "extension_failure",
            Self::WrongKind { .. } => "extension_wrong_type",
        }
    }

    pub(super) fn details(&self) -> Map<String, Value> {
        let details = match self {
            Self::NotFound
            | Self::CircuitOpen
            | Self::InvalidResponse
            | Self::Unavailable
            | Self::Quarantined
            | Self::MemoryLimit
            | Self::FuelLimit => json!({}),
            Self::Trap { reason } | Self::OutputLimit { reason } => json!({"invocation_error": reason}),
            Self::Failure { code, message } => json!({"failure_code": code, "failure_message": message}),
            Self::WrongKind { kind } => json!({"registered_type": kind}),
            Self::Timeout { timeout_ms, attempts } => {
                json!({"timeout_ms": timeout_ms, "retries": attempts, "retries_used": attempts})
            }
            Self::Invocation { reason } => json!({"invocation_error": reason}),
            Self::PayloadTooLarge { size, max } | Self::MetadataTooLarge { size, max } => {
                json!({"size": size, "max_size": max})
            }
            Self::TimeoutOutOfRange { timeout_ms } => json!({
                "timeout_ms": timeout_ms, "min_timeout_ms": TIMEOUT_MS.start(), "max_timeout_ms": TIMEOUT_MS.end(),
            }),
            Self::TooManyRetries { retry } => json!({"retry_count": retry, "max_retries": MAX_RETRIES}),
        };
        match details {
            Value::Object(details) => details,
            _ => Map::new(),
        }
    }
}

/// One extension in the order it was run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Executed {
    /// The list that names it.
    #[serde(rename = "type")]
    pub stage: Stage,
    /// Its id in the registry.
    pub id: Box<str>,
    /// Its result.
    pub status: Status,
    /// What it failed with; for the explanation, not for the list.
    #[serde(skip)]
    pub error: Option<&'static str>,
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "ExtensionStatus")]
pub enum Status {
    /// It succeeded. In a dry run: it was due, and not called.
    Ok,
    /// It failed and was optional.
    Error,
    /// It failed or refused the request, and the policy's `on_fail` is `warn`.
    Warn,
    /// It failed or refused the request, and the policy's `on_fail` is `ignore`.
    Ignore,
    /// Its `when` was not true.
    Skipped,
}

/// There are none: every id is unknown.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoExtensions;

impl Immediate for NoExtensions {}

impl Extensions for NoExtensions {
    async fn call(&self, _: &Call<'_>) -> Result<Answer, ExtensionError> {
        Err(ExtensionError::NotFound)
    }
}

/// Extensions that answer what an author wrote down, to try a policy without them.
#[derive(Debug, Clone, Default, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
pub struct Scripted {
    /// Answers by extension id.
    #[serde(default)]
    pub answers: BTreeMap<String, Script>,
    /// Whether every other extension succeeds with nothing to say; otherwise it is unknown.
    #[serde(default)]
    pub others_succeed: bool,
}

/// What one extension does.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Script {
    /// The platform's JSON answer: `{payload?, metadata?}`, or a verdict.
    Answers(Value),
    /// It does not answer within this many milliseconds.
    TimesOut(u32),
    /// It fails, for this reason.
    Fails(String),
}

impl Immediate for Scripted {}

impl Extensions for Scripted {
    async fn call(&self, call: &Call<'_>) -> Result<Answer, ExtensionError> {
        match self.answers.get(call.id) {
            Some(Script::Answers(answer)) => Answer::parse(answer.clone()),
            Some(Script::TimesOut(timeout_ms)) => Err(ExtensionError::Timeout {
                timeout_ms: *timeout_ms,
                attempts: call.retry.unwrap_or(0) + 1,
            }),
            Some(Script::Fails(reason)) => Err(ExtensionError::Invocation {
                reason: reason.as_str().into(),
            }),
            None if self.others_succeed => Ok(Answer::default()),
            None => Err(ExtensionError::NotFound),
        }
    }
}
