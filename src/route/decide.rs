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
    intake::{Client, Decided, Explain, Options},
    policy::{DetailLevel, exact},
    respond::{self, Body, DECISION_ID, Response, SEED},
    snapshot::Key,
};

/// Asks for an explanation: `true`, or the level.
const EXPLAIN: HeaderName = HeaderName::from_static("x-beamline-explain");

/// Bytes from which a body takes longer to read than a lookup may wait.
const LONG: usize = 32 << 10;

impl Router {
    pub(super) async fn decide(
        self: Arc<Self>,
        headers: HeaderMap,
        body: Incoming,
        client: Client,
    ) -> Result<Response, Failure> {
        let body = self.read(body, client).await?;
        if body.bytes.len() <= LONG {
            return self.decide_on(&headers, &body.bytes).await;
        }
        let this = self.clone();
        // In a box, so that the future of every other request has no room for it.
        let deciding = Box::pin(async move { this.decide_on(&headers, &body.bytes).await });
        self.elsewhere(deciding).await
    }

    async fn decide_on(&self, headers: &HeaderMap, body: &[u8]) -> Result<Response, Failure> {
        let request = self.intake.read(body)?;
        let options = Options {
            seed: self.seed(headers)?,
            explain: explain(headers)?,
        };
        let decided = self.intake.decide(request, options).await?;
        let mut response = Response::new(Body::from(Bytes::from(decided.to_json()?)));
        *response.headers_mut() = head(&decided);
        Ok(response)
    }

    pub(super) async fn results(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: Client,
    ) -> Result<Response, Failure> {
        let body = self.read(request.into_body(), client).await?;
        let counts = if body.bytes.len() <= LONG {
            self.intake.results(&body.bytes)?
        } else {
            let this = self.clone();
            self.elsewhere(async move { this.intake.results(&body.bytes) })
                .await?
        };
        let body = json!({"ok": true, "accepted": counts.accepted, "duplicates": counts.duplicates});
        Ok(respond::json(StatusCode::ACCEPTED, &body))
    }

    /// A dry run reads a policy, and is made elsewhere.
    pub(super) async fn dry_run(
        self: &Arc<Self>,
        request: Request<Incoming>,
        client: Client,
    ) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let body = self.read(body, client).await?;
        let this = self.clone();
        self.elsewhere(async move { this.try_out(&parts.headers, &body.bytes).await })
            .await
    }

    async fn try_out(&self, headers: &HeaderMap, body: &[u8]) -> Result<Response, Failure> {
        let (seed, explain) = (self.seed(headers)?, explain(headers)?);
        let run = self.intake.dry_run(body, seed, explain).await?;
        let result = json!({
            "decision": {"provider_id": run.provider, "reason": run.reason, "priority": run.priority},
            "executed_extensions": run.executed_extensions,
            "final_payload": run.final_payload,
            "explanation": run.explanation,
        });
        Ok(respond::json(
            StatusCode::OK,
            &exact::Written(json!({"ok": true, "result": result})),
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
