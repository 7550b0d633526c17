//! Results: what became of calls to providers. Breakers and estimates learn from them.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value};

use super::{entry::Intake, record::Recorder};
use crate::{
    clock::{self, Timestamp},
    decide::memory::{CallResult, classify},
    failure::{ErrorCode, Failure},
    policy::{ProviderId, TenantId},
    snapshot::Snapshot,
};

/// Most results of one request.
const MAX_RESULTS: usize = 100;

/// The results of one request: one, or a list.
#[derive(Debug)]
pub struct ExecResults(Vec<ExecResult>);

/// One valid result.
#[derive(Debug)]
struct ExecResult {
    tenant: TenantId,
    id: String,
    status: String,
    provider: Option<ProviderId>,
    latency_ms: Option<u64>,
    cost: Option<f64>,
    error_code: Option<String>,
    error_type: Option<String>,
    error_message: Option<String>,
}

/// Why a result is refused: the reason, the platform's code, and a sentence.
#[derive(Debug)]
struct Invalid(&'static str, &'static str, String);

/// How many results of a request were new.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Results that were new and have been counted.
    pub accepted: u32,
    /// Results that had been counted before.
    pub duplicates: u32,
}

impl Intake {
    /// Counts one result, or a list of them: all or, if one is invalid, none. A result of a tenant that cannot have
    /// asked for a decision is invalid: it would take room in tables that the other tenants need.
    ///
    /// # Errors
    /// `invalid_request` names the first invalid result, by its path.
    pub fn results(&self, body: &[u8]) -> Result<Accepted, Failure> {
        let metrics = &self.metrics;
        let refuse = |at: String, Invalid(reason, code, message): Invalid| {
            metrics.result_refused(reason, code);
            Failure::new(ErrorCode::InvalidRequest, message)
                .detail("reason", reason)
                .detail("error_code", code)
                .detail("path", at)
        };
        let results = ExecResults::parse(body).map_err(|(at, invalid)| refuse(at, invalid))?;
        let snapshot = self.store.load();
        for (index, result) in results.0.iter().enumerate() {
            self.admit_result(&snapshot, &result.tenant)
                .map_err(|invalid| refuse(format!("$[{index}]"), invalid))?;
        }
        let mut counts = Accepted::default();
        let now = clock::now();
        for result in results.0 {
            if self.results.is_new(&result.tenant, &result.id, now) {
                self.count(&result, now);
                counts.accepted += 1;
            } else {
                metrics.results_duplicate.inc();
                counts.duplicates += 1;
            }
        }
        Ok(counts)
    }

    /// Whether a decision can have been made for this tenant.
    fn admit_result(&self, snapshot: &Snapshot, tenant: &TenantId) -> Result<(), Invalid> {
        let (reason, message) = if self.rules.admit_tenant(tenant).is_err() {
            ("tenant_not_allowed", "is not in decide.allowed_tenants")
        } else if snapshot
            .tenant(tenant.as_str())
            .is_none_or(|known| known.found().next().is_none())
        {
            ("tenant_unknown", "has no policy here")
        } else {
            return Ok(());
        };
        let message = format!("tenant_id {message}");
        Err(Invalid(reason, "TENANT_VALIDATION_FAILED", message))
    }

    fn count(&self, result: &ExecResult, now: Timestamp) {
        let metrics = &self.metrics;
        metrics.result(&result.status);
        if let Some(latency_ms) = result.latency_ms {
            metrics.result_latency_ms.observe(latency_ms as f64);
        }
        let (Some(provider), Some(counted)) = (
            &result.provider,
            classify(
                &result.status,
                result.error_code.as_deref(),
                result.error_type.as_deref(),
                result.error_message.as_deref(),
            ),
        ) else {
            return;
        };
        let memory = &self.memory;
        let failed = counted == CallResult::Failure;
        memory.estimates.record(
            &result.tenant,
            provider,
            result.latency_ms,
            result.cost,
            failed,
            now,
        );
        let tenant = self.store.metrics().tenant_label(&result.tenant);
        metrics.breaker_event(tenant, provider.as_str(), counted);
        let transition = memory
            .breakers
            .record(&result.tenant, provider, counted, result.latency_ms, now);
        Recorder::new(&self.store, metrics).transitions(transition.as_slice());
    }
}

impl ExecResults {
    /// Reads a body. What is wrong comes with its path.
    fn parse(body: &[u8]) -> Result<Self, (String, Invalid)> {
        let unreadable = |message: String| {
            let invalid = Invalid("parse_error", "PARSE_ERROR", message);
            ("$".to_owned(), invalid)
        };
        let parsed: Value = serde_json::from_slice(body)
            .map_err(|error| unreadable(format!("Failed to parse JSON: {error}")))?;
        let list = match parsed {
            Value::Array(list) if list.len() > MAX_RESULTS => {
                let message = format!("one request brings at most {MAX_RESULTS} results");
                let invalid = Invalid("too_many_results", "PARSE_ERROR", message);
                return Err(("$".to_owned(), invalid));
            }
            Value::Array(list) => list,
            one => vec![one],
        };
        let results = list.iter().enumerate().map(|(index, result)| {
            ExecResult::parse(result).map_err(|invalid| (format!("$[{index}]"), invalid))
        });
        results.collect::<Result<_, _>>().map(Self)
    }
}

impl JsonSchema for ExecResults {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ExecResults".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<ExecResult>();
        json_schema!({"oneOf": [one, {"type": "array", "maxItems": MAX_RESULTS, "items": one}]})
    }
}

impl JsonSchema for ExecResult {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ExecResult".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "required": ["tenant_id", "status"],
            "anyOf": [{"required": ["assignment_id"]}, {"required": ["request_id"]}],
            "properties": {
                "version": {"const": "1"},
                "tenant_id": generator.subschema_for::<TenantId>(),
                "assignment_id": {"type": "string", "minLength": 1, "maxLength": 256},
                "request_id": {"type": "string", "minLength": 1, "maxLength": 256},
                "status": {"enum": ["success", "error", "timeout", "cancelled"]},
                "provider_id": {"type": "string", "pattern": "^[A-Za-z0-9_.:/-]{1,255}$"},
                "latency_ms": {"type": "integer", "minimum": 0},
                "cost": {"type": "number", "minimum": 0},
                "error_code": {"type": "string"},
                "error_type": {"type": "string"},
                "error_message": {"type": "string"},
            },
        })
    }
}

impl ExecResult {
    fn parse(result: &Value) -> Result<Self, Invalid> {
        let Value::Object(result) = result else {
            return Err(Invalid(
                "parse_error",
                "PARSE_ERROR",
                "a result is a JSON object".into(),
            ));
        };
        if result.get("version").is_some_and(|version| version != "1") {
            return Err(Invalid(
                "unsupported_version",
                "PARSE_ERROR",
                "version must be \"1\"".into(),
            ));
        }
        let tenant = match result.get("tenant_id").and_then(Value::as_str) {
            None => {
                let message = "tenant_id is required".into();
                return Err(Invalid("tenant_missing", "TENANT_VALIDATION_FAILED", message));
            }
            Some(tenant) => TenantId::parse(tenant).map_err(|error| {
                Invalid(
                    "tenant_invalid_format",
                    "TENANT_VALIDATION_FAILED",
                    format!("tenant_id {error}"),
                )
            })?,
        };
        let text = |key: &str| text(result, key);
        let id = text("assignment_id")
            .or_else(|| text("request_id"))
            .filter(|id| (1..=256).contains(&id.len()));
        let Some(id) = id else {
            let message = "assignment_id or request_id, of at most 256 bytes, is required".into();
            return Err(Invalid(
                "missing_correlation_id",
                "MISSING_CORRELATION_ID",
                message,
            ));
        };
        let status = match text("status") {
            None => {
                return Err(Invalid(
                    "missing_status",
                    "MISSING_STATUS",
                    "status is required".into(),
                ));
            }
            Some(status) if matches!(&*status, "success" | "error" | "timeout" | "cancelled") => status,
            Some(_) => {
                let message = "status is success, error, timeout or cancelled".into();
                return Err(Invalid("invalid_status", "INVALID_STATUS", message));
            }
        };
        let provider = match text("provider_id") {
            None => None,
            Some(provider) => {
                ProviderId::check(&provider).map_err(|_| {
                    let message = "provider_id has 1 to 255 characters of A-Z a-z 0-9 _ . : / -".into();
                    Invalid("invalid_provider_id", "PARSE_ERROR", message)
                })?;
                Some(ProviderId::new(&provider))
            }
        };
        let number = |key: &str| {
            result
                .get(key)
                .and_then(Value::as_f64)
                .filter(|number| *number >= 0.0)
        };
        Ok(Self {
            tenant,
            id,
            status,
            provider,
            latency_ms: result.get("latency_ms").and_then(Value::as_u64),
            cost: number("cost"),
            error_code: text("error_code"),
            error_type: text("error_type"),
            error_message: text("error_message"),
        })
    }
}

fn text(result: &Map<String, Value>, key: &str) -> Option<String> {
    result.get(key).and_then(Value::as_str).map(ToOwned::to_owned)
}
