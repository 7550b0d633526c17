//! Requests that have to wait: a bounded number at a time, the rest refused at once.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderMap, Request};
use hyper::body::Incoming;
use tower::{ServiceBuilder, ServiceExt, util::BoxCloneSyncService};

use super::Router;
use crate::{
    decide::Seed,
    policy::TenantId,
    respond::{ErrorCode, Failure, Response},
    snapshot::Key,
};

/// What there is to wait for.
pub(super) enum Job {
    Fetch(Key, HeaderMap, Instant),
    List(TenantId, Instant),
    Write(Key, Request<Incoming>),
    Forward(Request<Incoming>),
    Decide {
        key: Key,
        headers: HeaderMap,
        body: Bytes,
    },
    DryRun {
        key: Key,
        seed: Seed,
        body: Bytes,
    },
    Complexity(Key),
}

/// The stack around everything that waits.
pub(super) struct Slow(BoxCloneSyncService<(Arc<Router>, Job), Response, tower::BoxError>);

impl std::fmt::Debug for Slow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slow")
    }
}

impl Slow {
    pub(super) fn new(max_waiting_requests: usize) -> Self {
        let stack = ServiceBuilder::new()
            // Outermost, so that what the limit has no room for is refused and not kept waiting.
            .load_shed()
            .concurrency_limit(max_waiting_requests)
            .service(tower::service_fn(
                |(router, job): (Arc<Router>, Job)| async move {
                    let _counted = InFlight::count(&router);
                    let answered = router.run(job).await;
                    Ok::<_, tower::BoxError>(answered.unwrap_or_else(|failure| router.fail(failure)))
                },
            ));
        Self(BoxCloneSyncService::new(stack))
    }

    pub(super) async fn run(&self, router: Arc<Router>, job: Job) -> Result<Response, Failure> {
        self.0
            .clone()
            .oneshot((router, job))
            .await
            .map_err(|_overloaded| {
                let message = "too many requests wait for HEIR already (limits.max_waiting_requests)";
                Failure::new(ErrorCode::Overloaded, message).retry_after_seconds(1)
            })
    }
}

/// One request that waits; counted until dropped.
struct InFlight<'a>(&'a Router);

impl<'a> InFlight<'a> {
    fn count(router: &'a Router) -> Self {
        router.metrics.waiting_requests.inc();
        Self(router)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.metrics.waiting_requests.dec();
    }
}

impl Router {
    async fn run(&self, job: Job) -> Result<Response, Failure> {
        match job {
            Job::Fetch(key, headers, started) => self.lookup_in_heir(&key, &headers, started).await,
            Job::List(tenant, started) => self.list(&tenant, started).await,
            Job::Write(key, request) => self.write(&key, request).await,
            Job::Decide { key, headers, body } => self.decide_with_heir(&key, &headers, &body).await,
            Job::DryRun { key, seed, body } => self.dry_run_with_heir(&key, seed, &body).await,
            Job::Complexity(key) => self.complexity_with_heir(&key).await,
            Job::Forward(request) => match &self.upstream {
                Some(upstream) => upstream.forwarder.forward(request).await,
                None => Err(Failure::new(
                    ErrorCode::NotFound,
                    "there is no such path here, and no HEIR to forward to",
                )),
            },
        }
    }
}
