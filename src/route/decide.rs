//! `POST /api/v1/decide`, `…/results`, `…/policies/dry-run` and the complexity of a policy: headers and bytes around the
//! use cases of decisions.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, Request, StatusCode, header};
use hyper::body::Incoming;
use serde_json::json;

use super::{lookup, router::Router};
use crate::{
    decide::Seed,
    failure::{ErrorCode, Failure, LimitState},
    intake::{Decided, Explain, Options},
    policy::DetailLevel,
    respond::{self, Body, DECISION_ID, Response, SEED},
    snapshot::Key,
};

/// Asks for an explanation: `true`, or the level.
const EXPLAIN: HeaderName = HeaderName::from_static("x-beamline-explain");

impl Router {
    pub(super) async fn decide(self: &Arc<Self>, request: Request<Incoming>) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let body = self.read(body).await?;
        let request = self.intake.read(&body)?;
        let options = Options {
            seed: self.seed(&parts.headers)?,
            explain: explain(&parts.headers)?,
        };
        let decided = self.intake.decide(request, options).await?;
        let mut response = Response::new(Body::from(Bytes::from(decided.to_json()?)));
        *response.headers_mut() = head(&decided);
        Ok(response)
    }

    pub(super) async fn results(&self, request: Request<Incoming>) -> Result<Response, Failure> {
        let body = self.read(request.into_body()).await?;
        let counts = self.intake.results(&body)?;
        let body = json!({"ok": true, "accepted": counts.accepted, "duplicates": counts.duplicates});
        Ok(respond::json(StatusCode::ACCEPTED, &body))
    }

    pub(super) async fn dry_run(&self, request: Request<Incoming>) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let body = self.read(body).await?;
        let seed = self.seed(&parts.headers)?;
        let run = self.intake.dry_run(&body, seed).await?;
        let result = json!({
            "decision": {"provider_id": run.provider, "reason": run.reason, "priority": run.priority},
            "executed_extensions": run.executed_extensions,
            "final_payload": run.final_payload,
            "explanation": run.explanation,
        });
        Ok(respond::json(
            StatusCode::OK,
            &json!({"ok": true, "result": result}),
        ))
    }

    pub(super) async fn complexity(&self, key: &Key) -> Result<Response, Failure> {
        let report = self.intake.complexity(&key.0, &key.1).await?;
        Ok(respond::json(StatusCode::OK, &report))
    }

    /// The request's seed, where it may choose one.
    fn seed(&self, headers: &HeaderMap) -> Result<Option<Seed>, Failure> {
        let Some(value) = headers.get(SEED).filter(|_| self.intake.allows_seed()) else {
            return Ok(None);
        };
        let seed = value.to_str().ok().and_then(|text| text.parse().ok());
        let invalid = || Failure::new(ErrorCode::InvalidRequest, "x-beamline-seed is 1 to 16 hex digits");
        seed.map(Some).ok_or_else(invalid)
    }
}

fn head(decided: &Decided<'_>) -> HeaderMap {
    let mut headers = lookup::head(decided.stamp);
    headers.remove(header::ETAG);
    headers.insert(DECISION_ID, respond::text(decided.id));
    headers.insert(SEED, respond::text(decided.seed));
    if let Some(allowance) = decided.allowance() {
        let state = LimitState {
            limit: allowance.limit.per_window(),
            remaining: allowance.remaining.tokens.into(),
            reset_unix_seconds: allowance.remaining.reset_unix_seconds,
        };
        respond::limit_headers(&mut headers, state);
    }
    headers
}

fn explain(headers: &HeaderMap) -> Result<Explain, Failure> {
    let unknown_level = || {
        Failure::new(
            ErrorCode::InvalidRequest,
            "x-beamline-explain is true, minimal, detailed or verbose",
        )
    };
    let Some(value) = headers.get(EXPLAIN) else {
        return Ok(Explain::IfContextAsks);
    };
    match value.to_str() {
        Ok("true") => Ok(Explain::AtItsLevel),
        Ok("false") => Ok(Explain::IfContextAsks),
        Ok(level) => DetailLevel::parse(level)
            .map(Explain::At)
            .ok_or_else(unknown_level),
        Err(_) => Err(unknown_level()),
    }
}
