//! `POST /api/v1/results`: what became of calls to providers. Breakers and estimates learn from it.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json};

use super::{Router, now, observe};
use crate::{
    decide::{
        Timestamp,
        memory::{CallResult, classify},
    },
    policy::{ProviderId, TenantId},
    respond::{self, ErrorCode, Failure, Response},
};

/// Most results of one request.
const MOST: usize = 100;
/// Results that are remembered, so that one which is sent again is not counted again, and for how long.
const REMEMBERED: usize = 10_000;
const REMEMBERED_MS: u64 = 3_600_000;

/// Results that were taken in lately.
#[derive(Debug, Default)]
pub(super) struct ResultsMemory(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    at: HashMap<(TenantId, Arc<str>), Timestamp>,
    order: VecDeque<((TenantId, Arc<str>), Timestamp)>,
}

impl ResultsMemory {
    /// Whether this is the first time within the hour.
    fn is_new(&self, tenant: &TenantId, id: &str, now: Timestamp) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = |since: Timestamp| now.since(since) >= REMEMBERED_MS;
        while seen.order.front().is_some_and(|(_, since)| is_over(*since)) || seen.order.len() >= REMEMBERED {
            let Some((oldest, _)) = seen.order.pop_front() else {
                break;
            };
            seen.at.remove(&oldest);
        }
        let key: (TenantId, Arc<str>) = (tenant.clone(), id.into());
        if seen.at.contains_key(&key) {
            return false;
        }
        seen.at.insert(key.clone(), now);
        seen.order.push_back((key, now));
        true
    }
}

/// One result that can be taken in.
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

/// Why a result is not taken in: the reason, the platform's code, and a sentence.
#[derive(Debug)]
struct Invalid(&'static str, &'static str, String);

impl Router {
    /// Takes in one result, or a list of them: all or, if one is wrong, none.
    pub(in crate::route) async fn results(&self, request: Request<Incoming>) -> Result<Response, Failure> {
        let body = self.read(request.into_body()).await?;
        let metrics = &self.metrics.decisions;
        let refuse = |at: String, Invalid(reason, code, message): Invalid| {
            metrics.result_refused(reason, code);
            Failure::new(ErrorCode::InvalidRequest, message)
                .detail("reason", reason)
                .detail("error_code", code)
                .detail("path", at)
        };
        let parsed: Value = serde_json::from_slice(&body).map_err(|error| {
            refuse(
                "$".into(),
                Invalid(
                    "parse_error",
                    "PARSE_ERROR",
                    format!("Failed to parse JSON: {error}"),
                ),
            )
        })?;
        let list = match parsed {
            Value::Array(list) if list.len() > MOST => {
                let message = format!("one request brings at most {MOST} results");
                return Err(refuse(
                    "$".into(),
                    Invalid("too_many_results", "PARSE_ERROR", message),
                ));
            }
            Value::Array(list) => list,
            one => vec![one],
        };
        let results: Result<Vec<_>, _> = list
            .iter()
            .enumerate()
            .map(|(index, result)| {
                ExecResult::parse(result).map_err(|invalid| refuse(format!("$[{index}]"), invalid))
            })
            .collect();
        let (mut accepted, mut duplicates) = (0_u32, 0_u32);
        let now = now();
        for result in results? {
            if self.decider.results.is_new(&result.tenant, &result.id, now) {
                self.take_in(&result, now);
                accepted += 1;
            } else {
                metrics.results_duplicate.inc();
                duplicates += 1;
            }
        }
        let body = json!({"ok": true, "accepted": accepted, "duplicates": duplicates});
        Ok(respond::json(StatusCode::ACCEPTED, &body))
    }

    fn take_in(&self, result: &ExecResult, now: Timestamp) {
        let metrics = &self.metrics.decisions;
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
        let memory = &self.decider.memory;
        let failed = counted == CallResult::Failure;
        memory.estimates.record(
            &result.tenant,
            provider,
            result.latency_ms,
            result.cost,
            failed,
            now,
        );
        metrics.breaker_event(
            self.metrics.tenant_label(&result.tenant),
            provider.as_str(),
            counted,
        );
        let transition = memory
            .breakers
            .record(&result.tenant, provider, counted, result.latency_ms, now);
        observe::transitions(&self.metrics, transition.as_slice());
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
