//! Lookups: from the snapshot, at once, whether HEIR is up or not.

use std::{cell::RefCell, sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    headers::{FRESHNESS, POLICY_PROBLEMS, SNAPSHOT_AGE_MS, SNAPSHOT_REVISION, SOURCE, STALE},
    router::Router,
};
use crate::{
    failure::{ErrorCode, Failure},
    intake::{SnapshotStamp, expired},
    policy::{PolicyId, TenantId},
    refresh::FetchOutcome,
    respond::{Body, JSON, Response},
    snapshot::{Age, Found, Key, Lookup, Policy, Snapshot, Tenant},
};

/// Whether a lookup can be answered from memory.
pub(super) enum Answer {
    Now(Response),
    /// Only HEIR knows.
    AskHeir,
}

impl Router {
    pub(super) fn lookup(&self, tenant: &str, policy: &str, headers: &HeaderMap, started: Instant) -> Answer {
        let snapshot = self.store.load();
        let (lookup, known) = snapshot.lookup(tenant, policy);
        let metrics = known.map_or_else(|| self.store.metrics().other_tenant(), |tenant| tenant.metrics());
        let response = match lookup {
            Lookup::Found(found) => {
                metrics.hits.inc();
                let age = self.store.freshness().of_policy(started, tenant, policy);
                let mut response = self.found(&snapshot, found, headers, age);
                name_problems(known, policy, found.policy, &mut response);
                response
            }
            Lookup::Unknown if self.must_ask(tenant, policy) => return Answer::AskHeir,
            Lookup::Absent | Lookup::Unknown => {
                metrics.misses.inc();
                self.absent(&snapshot, started)
            }
        };
        metrics.latency_ms.observe(started.elapsed().as_secs_f64() * 1e3);
        Answer::Now(response)
    }

    /// Whether only HEIR can say if a policy exists, and has not just said that it does not.
    pub(super) fn must_ask(&self, tenant: &str, policy: &str) -> bool {
        let Some(upstream) = &self.upstream else {
            return false;
        };
        let (Ok(tenant), Ok(policy)) = (TenantId::parse(tenant), PolicyId::parse(policy)) else {
            return false;
        };
        !upstream.fetcher.is_known_absent(&(tenant, policy))
    }

    /// A lookup of a policy that only HEIR knows.
    pub(super) async fn lookup_in_heir(
        self: &Arc<Self>,
        key: Key,
        headers: HeaderMap,
        started: Instant,
    ) -> Result<Response, Failure> {
        let (place, this) = (self.waiting.place(&key.0)?, self.clone());
        self.elsewhere(async move {
            let response = this.fetch_and_look_up(&key, &headers, started).await?;
            Ok(response.map(|body| body.holding(place)))
        })
        .await
    }

    async fn fetch_and_look_up(
        &self,
        key: &Key,
        headers: &HeaderMap,
        started: Instant,
    ) -> Result<Response, Failure> {
        let Some(upstream) = &self.upstream else {
            return Ok(self.absent(&self.store.load(), started));
        };
        let outcome = upstream.fetcher.fetch(key).await;
        let snapshot = self.store.load();
        let metrics = snapshot
            .tenant(key.0.as_str())
            .map_or_else(|| self.store.metrics().other_tenant(), |t| t.metrics());
        metrics.misses.inc();
        metrics.latency_ms.observe(started.elapsed().as_secs_f64() * 1e3);
        let (lookup, known) = snapshot.lookup(key.0.as_str(), key.1.as_str());
        match (lookup, outcome) {
            (Lookup::Found(found), _) => {
                let (tenant, policy) = (key.0.as_str(), key.1.as_str());
                let age = self.store.freshness().of_policy(Instant::now(), tenant, policy);
                let mut response = self.found(&snapshot, found, headers, age);
                name_problems(known, policy, found.policy, &mut response);
                Ok(response)
            }
            (_, FetchOutcome::Failed(failure)) => Err(failure),
            (_, FetchOutcome::Stored | FetchOutcome::Absent) => Ok(self.absent(&snapshot, Instant::now())),
        }
    }

    fn found(
        &self,
        snapshot: &Snapshot,
        found: Found<'_>,
        headers: &HeaderMap,
        (age_ms, age): (u64, Age),
    ) -> Response {
        if self.store.freshness().refuses(age) {
            return self.fail(expired(age_ms));
        }
        let document = &found.policy.document;
        let mut answer = head(SnapshotStamp {
            revision: snapshot.position().revision,
            source: found.source(snapshot.origin()),
            age_ms,
            age,
        });
        if let Some(etag) = answer.get_mut(header::ETAG) {
            *etag = document.etag().header();
        }
        let is_known = |list| document.etag().is_named_by(list, true);
        if headers.get(header::IF_NONE_MATCH).is_some_and(is_known) {
            answer.remove(header::CONTENT_TYPE);
            let mut response = Response::new(Body::from(Bytes::new()));
            *response.status_mut() = StatusCode::NOT_MODIFIED;
            *response.headers_mut() = answer;
            return response;
        }
        let mut response = Response::new(Body::from(document.bytes().clone()));
        *response.headers_mut() = answer;
        response
    }

    fn absent(&self, snapshot: &Snapshot, now: Instant) -> Response {
        let (age_ms, age) = self.store.freshness().at(now);
        if self.store.freshness().refuses(age) {
            return self.fail(expired(age_ms));
        }
        let mut response = self.fail(Failure::new(ErrorCode::NotFound, "there is no such policy"));
        let headers = response.headers_mut();
        describe(headers, snapshot.position().revision, age_ms, age);
        if age != Age::Fresh
            || self
                .upstream
                .as_ref()
                .is_some_and(|upstream| !upstream.client.availability().is_up())
        {
            headers.insert(STALE, HeaderValue::from_static("true"));
        }
        response
    }
}

/// Says so if the policy that is answered with is broken.
fn name_problems(tenant: Option<&Tenant>, id: &str, policy: &Policy, response: &mut Response) {
    let errors = tenant.map_or(0, |tenant| tenant.errors_of(id, policy));
    if errors > 0 {
        response
            .headers_mut()
            .insert(POLICY_PROBLEMS, HeaderValue::from(errors));
    }
}

/// The headers of a lookup's answer, with a place for the entity tag.
///
/// Hashing the names costs more than copying the values, and at a hundred answers per millisecond ninety-nine of them
/// differ in nothing but the tag: the last head is kept, by each thread for itself.
pub(super) fn head(stamp: SnapshotStamp) -> HeaderMap {
    thread_local! {
        static LAST: RefCell<Option<(SnapshotStamp, HeaderMap)>> = const { RefCell::new(None) };
    }
    LAST.with_borrow_mut(|last| {
        if let Some((of, headers)) = last
            && *of == stamp
        {
            return headers.clone();
        }
        let mut headers = HeaderMap::with_capacity(8);
        headers.insert(header::CONTENT_TYPE, JSON);
        headers.insert(header::ETAG, HeaderValue::from_static("\"\""));
        describe(&mut headers, stamp.revision, stamp.age_ms, stamp.age);
        headers.insert(SOURCE, stamp.source.header());
        last.insert((stamp, headers)).1.clone()
    })
}

/// Says which snapshot answered, and how old it is.
pub(super) fn describe(headers: &mut HeaderMap, revision: Option<u64>, age_ms: u64, age: Age) {
    let revision = revision.map_or(HeaderValue::from_static("none"), HeaderValue::from);
    headers.insert(SNAPSHOT_REVISION, revision);
    headers.insert(SNAPSHOT_AGE_MS, HeaderValue::from(age_ms));
    headers.insert(FRESHNESS, age.header());
}
