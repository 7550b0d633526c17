//! A request for a decision, in either of its two forms.
//!
//! What is right is read in one pass that copies next to nothing. What is wrong is read a second time, as a tree, to
//! say what exactly is wrong in the contract's words and order.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de::Visitor};
use serde_json::{Map, Value, value::RawValue};

use crate::{
    decide::{Context, Message},
    failure::{ErrorCode, Failure, IntakeCode},
    policy::{PolicyId, TenantId, exact},
};

/// The only version of the request that there is.
const VERSION: &str = "1";

/// Fewest bytes of a payload that is sent along.
const PAYLOAD_BYTES: usize = 10;

/// Longest correlation text of the older form.
const TEXT_BYTES: usize = 256;

/// A request that can be decided on.
#[derive(Debug)]
pub struct DecideRequest<'a> {
    /// The tenant whose policy decides.
    pub tenant: TenantId,
    /// The policy that decides.
    pub policy_id: PolicyId,
    /// Correlates request and answer.
    pub request_id: Cow<'a, str>,
    /// The caller's trace id; `None` where it sent none.
    pub trace_id: Option<Cow<'a, str>>,
    /// The request's own part of the context.
    pub context: Context,
    /// Names the request, so that it takes effect once however often it is sent; 1 to 256 bytes.
    pub idempotency_key: Option<Cow<'a, str>>,
    /// Whether the decision is to be published as an assignment.
    pub push_assignment: bool,
    /// The subject to publish it on, in place of the configured one.
    pub assignment_subject: Option<Cow<'a, str>>,
    /// Options of the assignment, a JSON object; they win over the generated ones.
    pub options: Option<&'a RawValue>,
    /// Whether the context may hold integers of more than 64 bits.
    pub(super) has_long_integers: bool,
    message_type: Cow<'a, str>,
    payload_ref: Option<Cow<'a, str>>,
    payload: Option<&'a RawValue>,
    run_id: Option<Cow<'a, str>>,
    flow_id: Option<Cow<'a, str>>,
    step_id: Option<Cow<'a, str>>,
}

/// Why a request is refused before its policy is looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InvalidDecideRequest {
    /// The family of the refusal, `error.intake_error_code`.
    pub intake: IntakeCode,
    /// The contract's name for it; `details.reason`.
    pub reason: &'static str,
    /// A sentence for a person.
    pub message: String,
    /// As far as they could be found.
    pub request_id: Option<String>,
    /// As far as it could be found.
    pub trace_id: Option<String>,
}

/// A text, borrowed from the body unless it holds an escape.
#[derive(Debug, Clone, Default)]
struct Text<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Text<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Take;
        impl<'de> Visitor<'de> for Take {
            type Value = Text<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("a string")
            }
            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Text<'de>, E> {
                Ok(Text(text.into()))
            }
            fn visit_str<E>(self, text: &str) -> Result<Text<'de>, E> {
                Ok(Text(text.to_owned().into()))
            }
        }
        deserializer.deserialize_str(Take)
    }
}

impl JsonSchema for Text<'_> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Text".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string"})
    }
}

/// The `task` form; the older form has `message` and `context` in place of `task`, `constraints` and `metadata`.
#[derive(Deserialize, JsonSchema)]
struct Wire<'a> {
    #[serde(borrow)]
    #[schemars(extend("const" = VERSION))]
    version: Option<Text<'a>>,
    #[serde(borrow)]
    #[schemars(length(min = 1))]
    request_id: Option<Text<'a>>,
    #[serde(borrow)]
    #[schemars(with = "Option<TenantId>")]
    tenant_id: Option<Text<'a>>,
    /// Without it, `default`.
    #[serde(borrow)]
    #[schemars(with = "Option<PolicyId>")]
    policy_id: Option<Text<'a>>,
    /// 32 hex digits, or a UUIDv4.
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    run_id: Option<Text<'a>>,
    #[serde(borrow)]
    flow_id: Option<Text<'a>>,
    #[serde(borrow)]
    step_id: Option<Text<'a>>,
    #[serde(borrow)]
    #[schemars(length(min = 1, max = TEXT_BYTES))]
    idempotency_key: Option<Text<'a>>,
    #[serde(borrow)]
    #[schemars(with = "Option<bool>")]
    push_assignment: Option<&'a RawValue>,
    #[serde(borrow)]
    #[schemars(with = "Option<String>")]
    assignment_subject: Option<&'a RawValue>,
    #[serde(borrow)]
    #[schemars(with = "Option<Context>")]
    options: Option<&'a RawValue>,
    #[serde(borrow)]
    task: Option<Task<'a>>,
    #[serde(borrow)]
    message: Option<OlderMessage<'a>>,
    constraints: Option<Context>,
    /// Over `constraints` in the context that conditions and sessions read.
    metadata: Option<Context>,
    context: Option<Context>,
}

#[derive(Deserialize, JsonSchema)]
struct Task<'a> {
    #[serde(borrow, rename = "type")]
    #[schemars(required, length(min = 1))]
    kind: Option<Text<'a>>,
    #[serde(borrow)]
    payload_ref: Option<Text<'a>>,
    #[serde(borrow)]
    #[schemars(with = "Option<Value>")]
    payload: Option<&'a RawValue>,
}

#[derive(Deserialize, JsonSchema)]
struct OlderMessage<'a> {
    #[serde(borrow)]
    message_id: Option<Text<'a>>,
    #[serde(borrow)]
    tenant_id: Option<Text<'a>>,
    #[serde(borrow)]
    trace_id: Option<Text<'a>>,
    #[serde(borrow)]
    message_type: Option<Text<'a>>,
    #[serde(borrow)]
    payload_ref: Option<Text<'a>>,
    #[serde(borrow)]
    #[schemars(with = "Option<Value>")]
    payload: Option<&'a RawValue>,
}

impl JsonSchema for DecideRequest<'_> {
    fn schema_name() -> Cow<'static, str> {
        "DecideRequest".into()
    }

    /// Of what [`parse`](Self::parse) reads.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Wire::json_schema(generator)
    }
}

impl Wire<'_> {
    /// Reads the parts of the context again, integers of any length included.
    fn with_exact_context(self, body: &[u8]) -> serde_json::Result<Self> {
        #[derive(Deserialize)]
        struct Parts<'a> {
            #[serde(borrow)]
            constraints: Option<&'a RawValue>,
            #[serde(borrow)]
            metadata: Option<&'a RawValue>,
            #[serde(borrow)]
            context: Option<&'a RawValue>,
        }
        let parts: Parts<'_> = serde_json::from_slice(body)?;
        let read = |part: Option<&RawValue>| match part {
            Some(part) => exact::from_slice(part.get().as_bytes()),
            None => Ok(None),
        };
        Ok(Self {
            constraints: read(parts.constraints)?,
            metadata: read(parts.metadata)?,
            context: read(parts.context)?,
            ..self
        })
    }
}

impl<'a> DecideRequest<'a> {
    /// Reads a body.
    pub fn parse(body: &'a [u8]) -> Result<Self, InvalidDecideRequest> {
        let has_long_integers = exact::may_hold(body);
        let wire = serde_json::from_slice::<Wire<'a>>(body).and_then(|wire| {
            if has_long_integers {
                wire.with_exact_context(body)
            } else {
                Ok(wire)
            }
        });
        let parsed = match wire {
            Ok(wire) if wire.message.is_some() && wire.task.is_none() => Self::from_message(wire),
            Ok(wire) => Self::from_task(wire),
            Err(error) => Err(unreadable(body, &error)),
        };
        match parsed {
            Ok(request) => Ok(Self {
                has_long_integers,
                ..request
            }),
            Err(refused) => Err(refused.recover(body)),
        }
    }

    fn from_task(wire: Wire<'a>) -> Result<Self, InvalidDecideRequest> {
        match &wire.version {
            None => return Err(schema("missing_version", "Missing version field")),
            Some(version) if version.0 != VERSION => {
                let message = format!(
                    "Unsupported version: {}; supported: [\"{VERSION}\"]",
                    shown(&version.0)
                );
                return Err(refuse(
                    IntakeCode::VersionUnsupported,
                    "unsupported_version",
                    message,
                ));
            }
            Some(_) => {}
        }
        let tenant = tenant(wire.tenant_id.as_ref())?;
        check_correlation(&wire)?;
        let request_id = match wire.request_id {
            None => return Err(field("missing_request_id", "request_id is required")),
            Some(id) if id.0.is_empty() => return Err(field("empty_request_id", "request_id is empty")),
            Some(id) => id.0,
        };
        let Some(task) = wire.task else {
            return Err(field("missing_task", "task is required"));
        };
        let kind = match task.kind {
            None => return Err(field("missing_task_type", "task.type is required")),
            Some(kind) if kind.0.is_empty() => return Err(field("empty_task_type", "task.type is empty")),
            Some(kind) => kind.0,
        };
        check_payload(task.payload, task.payload_ref.as_ref())?;
        let context = match (wire.constraints, wire.metadata) {
            (None, context) | (context, None) => context.unwrap_or_default(),
            (Some(mut constraints), Some(metadata)) => {
                constraints.extend(metadata);
                constraints
            }
        };
        Ok(Self {
            tenant,
            policy_id: policy_id(wire.policy_id.as_ref(), &context)?,
            request_id,
            trace_id: wire.trace_id.map(|id| id.0),
            context,
            idempotency_key: wire.idempotency_key.map(|key| key.0),
            push_assignment: is_true(wire.push_assignment),
            assignment_subject: string(wire.assignment_subject),
            options: object(wire.options),
            has_long_integers: false,
            message_type: kind,
            payload_ref: task.payload_ref.map(|text| text.0),
            payload: task.payload,
            run_id: wire.run_id.map(|id| id.0),
            flow_id: wire.flow_id.map(|id| id.0),
            step_id: wire.step_id.map(|id| id.0),
        })
    }

    /// The older form has no version, and takes any short text for its ids.
    fn from_message(wire: Wire<'a>) -> Result<Self, InvalidDecideRequest> {
        let Some(message) = wire.message else {
            return Err(field("missing_task", "task is required"));
        };
        let tenant = tenant(message.tenant_id.as_ref().or(wire.tenant_id.as_ref()))?;
        let request_id = message.message_id.or(wire.request_id);
        let request_id = match request_id {
            None => return Err(field("missing_request_id", "message.message_id is required")),
            Some(id) if id.0.is_empty() => {
                return Err(field("empty_request_id", "message.message_id is empty"));
            }
            Some(id) => id.0,
        };
        let trace_id = message
            .trace_id
            .or(wire.trace_id)
            .map(|id| id.0)
            .filter(|id| !id.is_empty());
        let too_long = |id: &Cow<'_, str>| id.len() > TEXT_BYTES;
        if too_long(&request_id) {
            return Err(field(
                "invalid_request_id_format",
                "message.message_id is longer than 256 bytes",
            ));
        }
        if trace_id.as_ref().is_some_and(too_long) {
            return Err(field(
                "invalid_trace_id_format",
                "message.trace_id is longer than 256 bytes",
            ));
        }
        let context = wire.context.unwrap_or_default();
        Ok(Self {
            tenant,
            policy_id: policy_id(wire.policy_id.as_ref(), &context)?,
            request_id,
            trace_id,
            context,
            idempotency_key: wire.idempotency_key.map(|key| key.0),
            push_assignment: is_true(wire.push_assignment),
            assignment_subject: string(wire.assignment_subject),
            options: object(wire.options),
            has_long_integers: false,
            message_type: message
                .message_type
                .map_or(Cow::Borrowed("unknown"), |kind| kind.0),
            payload_ref: message.payload_ref.map(|text| text.0),
            payload: message.payload,
            run_id: None,
            flow_id: None,
            step_id: None,
        })
    }

    /// The merged context that the decision is made in. The request's own part moves into it.
    pub fn take_context(&mut self, environment: &str) -> Context {
        let mut context = std::mem::take(&mut self.context);
        context.insert("tenant_id".to_owned(), self.tenant.as_str().into());
        if !environment.is_empty() {
            context.insert("environment".to_owned(), environment.into());
        }
        if let Some(trace_id) = &self.trace_id
            && !context.contains_key("trace_id")
        {
            context.insert("trace_id".to_owned(), trace_id.as_ref().into());
        }
        if !context.contains_key("message_type") {
            context.insert("message_type".to_owned(), self.message_type.as_ref().into());
        }
        context
    }

    /// What extensions see.
    pub fn message(&self) -> Message<'_> {
        Message {
            message_id: Some(&self.request_id),
            trace_id: self.trace_id.as_deref(),
            message_type: Some(&self.message_type),
            payload_ref: self.payload_ref.as_deref(),
            payload: self.payload,
            run_id: self.run_id.as_deref(),
            flow_id: self.flow_id.as_deref(),
            step_id: self.step_id.as_deref(),
        }
    }
}

/// `true`, `"true"` and `1` are true; everything else is false (contract: messaging 2.1).
fn is_true(value: Option<&RawValue>) -> bool {
    value.is_some_and(|value| matches!(value.get(), "true" | "\"true\"" | "1"))
}

fn string(value: Option<&RawValue>) -> Option<Cow<'_, str>> {
    let text: Text<'_> = serde_json::from_str(value?.get()).ok()?;
    Some(text.0)
}

fn object(value: Option<&RawValue>) -> Option<&RawValue> {
    value.filter(|value| value.get().starts_with('{'))
}

fn refuse(intake: IntakeCode, reason: &'static str, message: impl Into<String>) -> InvalidDecideRequest {
    InvalidDecideRequest {
        intake,
        reason,
        message: message.into(),
        request_id: None,
        trace_id: None,
    }
}

fn schema(reason: &'static str, message: impl Into<String>) -> InvalidDecideRequest {
    refuse(IntakeCode::SchemaValidationFailed, reason, message)
}

fn field(reason: &'static str, message: impl Into<String>) -> InvalidDecideRequest {
    refuse(IntakeCode::CorrelationFieldsInvalid, reason, message)
}

impl InvalidDecideRequest {
    /// The refusal on its way to the caller.
    pub fn failure(self) -> Failure {
        let failure = Failure::new(ErrorCode::InvalidDecideRequest, self.message)
            .intake(self.intake)
            .detail("reason", self.reason);
        let failure = match self.intake {
            IntakeCode::VersionUnsupported => failure.detail("supported_versions", vec![VERSION]),
            _ => failure,
        };
        failure.about(self.request_id.as_deref(), self.trace_id.as_deref())
    }

    /// Finds the ids that the answer is to name, as far as the body has them.
    fn recover(mut self, body: &[u8]) -> Self {
        let Ok(Value::Object(body)) = serde_json::from_slice(body) else {
            return self;
        };
        let message = body.get("message");
        let text = |key: &str, older: &str| {
            let found = body
                .get(key)
                .or_else(|| message.and_then(|message| message.get(older)));
            found
                .and_then(Value::as_str)
                .filter(|text| text.len() <= TEXT_BYTES)
                .map(ToOwned::to_owned)
        };
        self.request_id = text("request_id", "message_id");
        self.trace_id = text("trace_id", "trace_id");
        self
    }
}

/// A client's text as a message repeats it.
fn shown(text: &str) -> String {
    format!("{:?}", text.chars().take(32).collect::<String>())
}

fn tenant(text: Option<&Text<'_>>) -> Result<TenantId, InvalidDecideRequest> {
    match text {
        None => Err(field("missing_tenant_id", "tenant_id is required")),
        Some(text) if text.0.is_empty() => Err(field("empty_tenant_id", "tenant_id is empty")),
        Some(text) => TenantId::parse(&text.0)
            .map_err(|error| field("tenant_invalid_format", format!("tenant_id {error}"))),
    }
}

/// The request's own, the context's, or `default`.
fn policy_id(text: Option<&Text<'_>>, context: &Context) -> Result<PolicyId, InvalidDecideRequest> {
    let text = match (text, context.get("policy_id")) {
        (Some(text), _) => &text.0,
        (None, Some(Value::String(text))) => text.as_str(),
        (None, _) => "default",
    };
    PolicyId::parse(text).map_err(|error| schema("invalid_policy_id", format!("policy_id {error}")))
}

fn check_correlation(wire: &Wire<'_>) -> Result<(), InvalidDecideRequest> {
    let (run, flow, step) = (&wire.run_id, &wire.flow_id, &wire.step_id);
    for (has, needs, reason) in [
        (run, flow, "flow_id_required_when_run_id_present"),
        (run, step, "step_id_required_when_run_id_present"),
        (flow, run, "run_id_required_when_flow_id_present"),
        (step, run, "run_id_required_when_step_id_present"),
        (step, flow, "flow_id_required_when_step_id_present"),
    ] {
        if has.is_some() && needs.is_none() {
            return Err(field(
                reason,
                "run_id, flow_id and step_id come together or not at all",
            ));
        }
    }
    for (id, reason, name) in [
        (run, "invalid_run_id_format", "run_id"),
        (flow, "invalid_flow_id_format", "flow_id"),
        (step, "invalid_step_id_format", "step_id"),
    ] {
        if id.as_ref().is_some_and(|id| !is_uuid(&id.0) && !is_ulid(&id.0)) {
            return Err(field(reason, format!("{name} is neither a UUIDv4 nor a ULID")));
        }
    }
    if wire.trace_id.as_ref().is_some_and(|id| !is_trace_id(&id.0)) {
        return Err(field(
            "invalid_trace_id_format",
            "trace_id is neither 32 hex digits nor a UUIDv4",
        ));
    }
    match wire.idempotency_key.as_ref().map(|key| key.0.len()) {
        Some(0) => Err(field("empty_idempotency_key", "idempotency_key is empty")),
        Some(257..) => Err(field(
            "idempotency_key_too_long",
            "idempotency_key is longer than 256 bytes",
        )),
        _ => Ok(()),
    }
}

fn check_payload(
    payload: Option<&RawValue>,
    payload_ref: Option<&Text<'_>>,
) -> Result<(), InvalidDecideRequest> {
    match (payload, payload_ref) {
        (None, None) => Err(field(
            "missing_task_payload",
            "task.payload or task.payload_ref is required",
        )),
        (None, Some(_)) => Ok(()),
        (Some(payload), _) if !payload.get().starts_with('{') => {
            Err(field("invalid_payload_format", "task.payload must be an object"))
        }
        (Some(payload), _) if payload.get().len() < PAYLOAD_BYTES => Err(field(
            "payload_too_small",
            format!("task.payload has fewer than {PAYLOAD_BYTES} bytes"),
        )),
        (Some(_), _) => Ok(()),
    }
}

fn is_trace_id(text: &str) -> bool {
    text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit()) || is_uuid(text)
}

/// A version 4 UUID, in either case.
fn is_uuid(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.len() == 36
        && bytes.iter().enumerate().all(|(index, byte)| match index {
            8 | 13 | 18 | 23 => *byte == b'-',
            14 => *byte == b'4',
            19 => matches!(byte.to_ascii_lowercase(), b'8' | b'9' | b'a' | b'b'),
            _ => byte.is_ascii_hexdigit(),
        })
}

/// 26 characters of Crockford's base 32, upper case.
fn is_ulid(text: &str) -> bool {
    let crockford =
        |b: u8| b.is_ascii_digit() || b.is_ascii_uppercase() && !matches!(b, b'I' | b'L' | b'O' | b'U');
    text.len() == 26 && text.bytes().all(crockford)
}

/// Says what is wrong with a body that the typed reading gave up on.
fn unreadable(body: &[u8], error: &serde_json::Error) -> InvalidDecideRequest {
    let Ok(tree) = serde_json::from_slice::<Value>(body) else {
        return schema("invalid_json", format!("Failed to parse JSON: {error}"));
    };
    let Value::Object(tree) = tree else {
        return schema("invalid_json", "Failed to parse JSON: the body is not an object");
    };
    let is_wrong = |object: &Map<String, Value>, key: &str| {
        object
            .get(key)
            .is_some_and(|value| !value.is_string() && !value.is_null())
    };
    for (key, reason, intake) in [
        ("version", "unsupported_version", IntakeCode::VersionUnsupported),
        (
            "tenant_id",
            "tenant_invalid_format",
            IntakeCode::CorrelationFieldsInvalid,
        ),
        (
            "run_id",
            "invalid_run_id_format",
            IntakeCode::CorrelationFieldsInvalid,
        ),
        (
            "flow_id",
            "invalid_flow_id_format",
            IntakeCode::CorrelationFieldsInvalid,
        ),
        (
            "step_id",
            "invalid_step_id_format",
            IntakeCode::CorrelationFieldsInvalid,
        ),
        (
            "trace_id",
            "invalid_trace_id_format",
            IntakeCode::CorrelationFieldsInvalid,
        ),
        (
            "idempotency_key",
            "invalid_idempotency_key_format",
            IntakeCode::CorrelationFieldsInvalid,
        ),
        (
            "request_id",
            "invalid_request_id_format",
            IntakeCode::CorrelationFieldsInvalid,
        ),
        (
            "policy_id",
            "invalid_policy_id",
            IntakeCode::SchemaValidationFailed,
        ),
    ] {
        if is_wrong(&tree, key) {
            return refuse(intake, reason, format!("{key} must be a string"));
        }
    }
    match tree.get("task") {
        Some(Value::Object(task)) if is_wrong(task, "type") => {
            return field("invalid_task_type", "task.type must be a string");
        }
        Some(Value::Object(task)) if is_wrong(task, "payload_ref") => {
            return field("invalid_payload_format", "task.payload_ref must be a string");
        }
        Some(Value::Object(_) | Value::Null) | None => {}
        Some(_) => return field("invalid_task_format", "task must be an object"),
    }
    schema(
        "invalid_structure",
        format!("The request does not have the form it should: {error}"),
    )
}

#[cfg(test)]
#[path = "request_tests.rs"]
mod tests;
