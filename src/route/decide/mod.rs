//! `POST /api/v1/decide` and what belongs to it: answered from the snapshot and the memory, like lookups.

mod dry_run;
mod observe;
mod request;
mod results;

use std::{
    sync::Arc,
    time::{Instant, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Request};
use hyper::body::Incoming;
use serde::Serialize;

pub use self::request::{DecideRequest, Intake, Refused};
use self::results::ResultsMemory;
use super::{Router, lookup, slow::Job};
use crate::{
    decide::{
        Complexity, Context, DecideConfig, DecideContext, Decision, DecisionId, DecisionInput, Effects,
        Explaining, Explanation, Metadata, Outcome, Provenance, Refusal, Rules, Seed, Timestamp, decide,
        detail_level, memory::Memory,
    },
    extensions::{ExtensionHost, Registry},
    policy::{DetailLevel, RoutingPolicy, TenantId},
    refresh::FetchOutcome,
    respond::{self, Body, ErrorCode, Failure, Response},
    snapshot::{Key, Lookup, Policy},
    telemetry::Metrics,
};

/// Largest request for a decision, in bytes; `limits.max_body_bytes` may be less.
const REQUEST_BYTES: usize = 1 << 20;

/// Asks for an explanation: `true`, or the level.
const EXPLAIN: HeaderName = HeaderName::from_static("x-beamline-explain");
/// The seed of a decision: in answers always, in requests where `decide.allow_seed` lets it.
const SEED: HeaderName = HeaderName::from_static("x-beamline-seed");
/// Names a decision.
const DECISION_ID: HeaderName = HeaderName::from_static("x-beamline-decision-id");
const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// What decisions need besides the snapshot.
#[derive(Debug)]
pub struct Decider {
    pub memory: Arc<Memory>,
    rules: Rules,
    environment: String,
    allow_seed: bool,
    log_decisions: bool,
    results: ResultsMemory,
    extensions: Arc<ExtensionHost>,
    metrics: Arc<Metrics>,
}

impl Decider {
    pub fn new(
        config: &DecideConfig,
        memory: Arc<Memory>,
        extensions: Arc<ExtensionHost>,
        metrics: Arc<Metrics>,
    ) -> Self {
        Self {
            memory,
            rules: config.rules(),
            environment: config.environment.clone(),
            allow_seed: config.allow_seed,
            log_decisions: config.log_decisions,
            results: ResultsMemory::default(),
            extensions,
            metrics,
        }
    }
}

/// The time of day, for whoever decides.
pub fn now() -> Timestamp {
    // A clock before 1970 is no clock; the first millisecond is as good.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp::from_unix_ms(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// Whether a decision can be answered with what is in memory.
enum Answer {
    Now(Response),
    /// Only HEIR knows the policy.
    AskHeir(Key),
}

/// A policy as a decision takes it, with the head that says where it came from.
struct Found {
    policy: Arc<Policy>,
    snapshot_revision: Option<u64>,
    /// The extensions that belong to it.
    registry: Arc<Registry>,
    headers: HeaderMap,
}

impl Router {
    /// Reads a request for a decision and answers it.
    pub(super) async fn decide(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let body = self.read(body).await?;
        match self.decide_on(&parts.headers, &body, false).await? {
            Answer::Now(response) => Ok(response),
            Answer::AskHeir(key) => {
                let job = Job::Decide {
                    key,
                    headers: parts.headers,
                    body,
                };
                self.slow.run(self.clone(), job).await
            }
        }
    }

    /// A decision on a policy that only HEIR knows.
    pub(super) async fn decide_with_heir(
        &self,
        key: &Key,
        headers: &HeaderMap,
        body: &Bytes,
    ) -> Result<Response, Failure> {
        self.fetch_for(key).await?;
        match self.decide_on(headers, body, true).await? {
            Answer::Now(response) => Ok(response),
            Answer::AskHeir((tenant, policy_id)) => {
                Err(failure(&Refusal::PolicyNotFound { tenant, policy_id }))
            }
        }
    }

    async fn fetch_for(&self, key: &Key) -> Result<(), Failure> {
        let Some(upstream) = &self.upstream else {
            return Ok(());
        };
        match upstream.fetcher.fetch(key).await {
            FetchOutcome::Failed(failure) => Err(failure),
            FetchOutcome::Stored | FetchOutcome::Absent => Ok(()),
        }
    }

    async fn decide_on(&self, headers: &HeaderMap, body: &Bytes, asked: bool) -> Result<Answer, Failure> {
        let started = Instant::now();
        let mut request = parse(body)?;
        let decider = &self.decider;
        let about = |failure: Failure| failure.about(Some(&request.request_id), request.trace_id.as_deref());
        if let Err(refusal) = decider.rules.admit_tenant(&request.tenant) {
            decider.metrics.decisions.tenants_rejected.inc();
            return Err(about(failure(&refusal).intake(Intake::TenantForbidden.as_str())));
        }
        let (seed, explain) = (seed(headers, decider.allow_seed)?, explain(headers)?);
        let found = match self.find(&request.tenant, request.policy_id.as_str(), asked) {
            Ok(Some(found)) => found,
            Ok(None) => {
                return Ok(Answer::AskHeir((
                    request.tenant.clone(),
                    request.policy_id.clone(),
                )));
            }
            Err(failure) => {
                observe::refused(self, &request.tenant, started);
                return Err(about(failure));
            }
        };
        let context = request.into_context(&decider.environment);
        let input = DecisionInput {
            tenant: &request.tenant,
            policy_id: &request.policy_id,
            context: &context,
            message: request.message(),
        };
        let at = DecideContext {
            id: DecisionId(fastrand::u128(..)),
            seed,
            now: now(),
            later: &now,
            effects: Effects::Remembered,
        };
        let policy = found.policy.routing();
        let Outcome { result, transitions } = decide(
            policy,
            input,
            &decider.rules,
            &decider.memory,
            &decider.extensions.calls(&found.registry, &request.request_id),
            at,
        )
        .await;
        observe::transitions(&decider.metrics, &transitions);
        let decision = match result {
            Ok(decision) => decision,
            Err(refusal) => {
                observe::refusal(self, input, at, &refusal, started);
                let failed = failure(&refusal).about(Some(&request.request_id), request.trace_id.as_deref());
                return Err(failed
                    .header(DECISION_ID, text(at.id))
                    .header(SEED, text(at.seed)));
            }
        };
        let explaining = Explaining {
            decision: &decision,
            policy,
            input,
            at,
            memory: &decider.memory,
            provenance: Provenance {
                policy_revision: found.policy.revision,
                snapshot_revision: found.snapshot_revision,
                policy_cache_hit: Some(!asked),
                decision_latency_ms: Some(started.elapsed().as_secs_f64() * 1e3),
            },
        };
        let explanation = explain.of(&context, policy, &decider.rules, &explaining);
        let extras = decision.extras(policy);
        let reply = Reply {
            ok: true,
            decision: ReplyDecision {
                provider_id: decision.selection.provider.as_str(),
                priority: decision.selection.how.priority(),
                expected_latency_ms: decision.expected_latency_ms(input, &decider.memory),
                expected_cost: decision.expected_cost(input, &decider.memory),
                reason: decision.selection.how.reason(),
                metadata: Metadata {
                    context: &context,
                    extras: &extras,
                },
                explanation: explanation.as_ref(),
            },
            context: ReplyContext {
                request_id: &request.request_id,
                trace_id: request.trace_id.as_deref(),
            },
        };
        let written = serde_json::to_vec(&reply)
            .map_err(|error| Failure::new(ErrorCode::InternalError, error.to_string()))?;
        let mut response = Response::new(Body::from(Bytes::from(written)));
        *response.headers_mut() = found.headers;
        add_headers(response.headers_mut(), at, &decision);
        observe::decided(self, &explaining, started);
        if decider.log_decisions {
            observe::log(&explaining);
        }
        Ok(Answer::Now(response))
    }

    /// The policy, or `None` where only HEIR can say.
    fn find(&self, tenant: &TenantId, policy_id: &str, asked: bool) -> Result<Option<Found>, Failure> {
        let snapshot = self.store.load();
        let (found, _) = snapshot.lookup(tenant.as_str(), policy_id);
        let found = match found {
            Lookup::Found(found) => found,
            Lookup::Unknown if !asked && self.must_ask(tenant.as_str(), policy_id) => return Ok(None),
            Lookup::Absent | Lookup::Unknown => {
                let message = format!("Policy '{tenant}/{policy_id}' not found");
                return Err(Failure::new(ErrorCode::PolicyNotFound, message)
                    .detail("tenant_id", tenant.as_str())
                    .detail("policy_id", policy_id));
            }
        };
        let (age_ms, age) = self.store.freshness().at(Instant::now());
        if self.store.freshness().refuses(age) {
            return Err(lookup::expired(age_ms));
        }
        let mut headers = lookup::head(&snapshot, found.source(snapshot.origin()), age_ms, age);
        headers.remove(http::header::ETAG);
        Ok(Some(Found {
            policy: found.policy.clone(),
            snapshot_revision: snapshot.position().revision,
            registry: snapshot.registry().clone(),
            headers,
        }))
    }

    /// `GET /api/v1/policies/{tenant}/{policy}/complexity`.
    pub(super) fn complexity(&self, key: &Key) -> Result<Option<Response>, Failure> {
        let found = self.find(&key.0, key.1.as_str(), false)?;
        Ok(found.map(|found| {
            let report = Complexity::of(found.policy.routing().pipeline.as_deref());
            respond::json(http::StatusCode::OK, &report)
        }))
    }

    /// As [`complexity`](Self::complexity), of a policy that only HEIR knows.
    pub(super) async fn complexity_with_heir(&self, key: &Key) -> Result<Response, Failure> {
        self.fetch_for(key).await?;
        let not_found = || Refusal::PolicyNotFound {
            tenant: key.0.clone(),
            policy_id: key.1.clone(),
        };
        self.complexity(key)?.ok_or_else(|| failure(&not_found()))
    }
}

fn parse(body: &Bytes) -> Result<DecideRequest<'_>, Failure> {
    if body.len() > REQUEST_BYTES {
        return Err(
            Failure::new(ErrorCode::PayloadTooLarge, "Payload size exceeds limit")
                .intake(Intake::SchemaValidationFailed.as_str())
                .detail("payload_size", body.len())
                .detail("max_payload_size", REQUEST_BYTES),
        );
    }
    DecideRequest::parse(body).map_err(|refused| {
        let failed = Failure::new(ErrorCode::InvalidRequest, refused.message)
            .intake(refused.intake.as_str())
            .detail("reason", refused.reason);
        let failed = match refused.intake {
            Intake::VersionUnsupported => failed.detail("supported_versions", vec!["1"]),
            _ => failed,
        };
        failed.about(refused.request_id.as_deref(), refused.trace_id.as_deref())
    })
}

/// A refusal as an error answer.
fn failure(refusal: &Refusal) -> Failure {
    use crate::decide::Stage;
    let code = match refusal {
        Refusal::TenantNotAllowed { .. } => ErrorCode::TenantForbidden,
        Refusal::PolicyNotFound { .. } => ErrorCode::PolicyNotFound,
        Refusal::RateLimited(_) => ErrorCode::RateLimitExceeded,
        Refusal::DeadlineExceeded { .. } => ErrorCode::DeadlineExceeded,
        Refusal::TooDeep { .. } | Refusal::TooMany { .. } => ErrorCode::InvalidRequest,
        Refusal::ProcessorFailed {
            stage: Stage::Post, ..
        } => ErrorCode::PostProcessorFailed,
        Refusal::ProcessorFailed { .. } => ErrorCode::ExtensionError,
        Refusal::Blocked { .. } => ErrorCode::ValidatorBlocked,
        Refusal::NoProvider { .. } => ErrorCode::DecisionFailed,
    };
    let mut failed = Failure::new(code, refusal.message());
    failed.details = refusal.details();
    failed
        .details
        .insert("error_type".into(), refusal.error_type().into());
    match refusal {
        Refusal::RateLimited(limited) => failed
            .retry_after_seconds(limited.refused.retry_after_seconds)
            .header(LIMIT, HeaderValue::from(limited.limit.per_window()))
            .header(REMAINING, HeaderValue::from(0))
            .header(RESET, HeaderValue::from(limited.refused.reset_unix_seconds)),
        // Breakers open again in seconds, and a client that asks at once is part of the stampede.
        Refusal::NoProvider { .. } => failed.retry_after_seconds(1),
        _ => failed,
    }
}

fn add_headers(headers: &mut HeaderMap, at: DecideContext<'_>, decision: &Decision) {
    headers.insert(DECISION_ID, text(at.id));
    headers.insert(SEED, text(at.seed));
    if let Some(allowance) = decision.allowance {
        headers.insert(LIMIT, HeaderValue::from(allowance.limit.per_window()));
        headers.insert(REMAINING, HeaderValue::from(allowance.remaining.tokens));
        headers.insert(RESET, HeaderValue::from(allowance.remaining.reset_unix_seconds));
    }
}

/// Hex digits as a header's value.
fn text(hex: impl std::fmt::Display) -> HeaderValue {
    HeaderValue::try_from(hex.to_string()).unwrap_or(HeaderValue::from_static(""))
}

/// The request's seed where it may choose one, else a new one.
fn seed(headers: &HeaderMap, allow: bool) -> Result<Seed, Failure> {
    match headers.get(SEED) {
        Some(value) if allow => value
            .to_str()
            .ok()
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| Failure::new(ErrorCode::InvalidRequest, "x-beamline-seed is 1 to 16 hex digits")),
        _ => Ok(Seed(fastrand::u64(..))),
    }
}

/// Whether an explanation is wanted besides what the context says.
#[derive(Debug, Clone, Copy)]
enum Explain {
    IfTheContextAsks,
    AtItsLevel,
    At(DetailLevel),
}

fn explain(headers: &HeaderMap) -> Result<Explain, Failure> {
    let Some(value) = headers.get(EXPLAIN) else {
        return Ok(Explain::IfTheContextAsks);
    };
    match value.to_str() {
        Ok("true") => Ok(Explain::AtItsLevel),
        Ok("false") => Ok(Explain::IfTheContextAsks),
        Ok(level) => DetailLevel::parse(level)
            .map(Explain::At)
            .ok_or_else(unknown_level),
        Err(_) => Err(unknown_level()),
    }
}

fn unknown_level() -> Failure {
    Failure::new(
        ErrorCode::InvalidRequest,
        "x-beamline-explain is true, minimal, detailed or verbose",
    )
}

impl Explain {
    fn of(
        self,
        context: &Context,
        policy: &RoutingPolicy,
        rules: &Rules,
        explaining: &Explaining<'_>,
    ) -> Option<Explanation> {
        let (level, unknown_level) = detail_level(context, policy, rules);
        match self {
            Self::IfTheContextAsks => context
                .contains_key("detail_level")
                .then(|| explaining.explain(level, unknown_level)),
            Self::AtItsLevel => Some(explaining.explain(level, unknown_level)),
            Self::At(level) => Some(explaining.explain(level, None)),
        }
    }
}

#[derive(Serialize)]
struct Reply<'a> {
    ok: bool,
    decision: ReplyDecision<'a>,
    context: ReplyContext<'a>,
}

#[derive(Serialize)]
struct ReplyDecision<'a> {
    provider_id: &'a str,
    priority: u8,
    expected_latency_ms: u64,
    expected_cost: f64,
    reason: &'static str,
    metadata: Metadata<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    explanation: Option<&'a Explanation>,
}

#[derive(Serialize)]
struct ReplyContext<'a> {
    request_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<&'a str>,
}
