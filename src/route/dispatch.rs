//! Which method and path leads where.

use std::{future::Future, sync::Arc, time::Instant};

use http::{Method, Request};
use hyper::body::Incoming;

use super::{
    guard, lookup,
    path::{PathId, Target},
    router::Router,
};
use crate::{
    failure::{ErrorCode, Failure},
    listener::{Handler, Peer, Reply, discard},
    respond::Response,
    snapshot::Key,
};

impl Router {
    fn route(self: &Arc<Self>, request: Request<Incoming>) -> Result<Reply, Failure> {
        let started = Instant::now();
        if let Err(failure) = guard::check(&request, self.limits.max_body_bytes) {
            return match failure.code {
                ErrorCode::PayloadTooLarge => Ok(self.answer(|_| async move {
                    let (head, body) = request.into_parts();
                    discard(&head.headers, body).await;
                    Err(failure)
                })),
                _ => Err(failure),
            };
        }
        let target = Target::parse(request.uri())
            .map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.to_string()).closing())?;
        match (request.method(), target) {
            (&Method::GET | &Method::HEAD, Target::Policy { tenant, policy }) => {
                match self.lookup(tenant.as_str(), policy.as_str(), request.headers(), started) {
                    lookup::Answer::Now(response) => Ok(Reply::Ready(response)),
                    lookup::Answer::AskHeir => {
                        let (key, headers) = (key(&tenant, &policy)?, request.headers().clone());
                        Ok(self
                            .later(|this| async move { this.lookup_in_heir(&key, &headers, started).await }))
                    }
                }
            }
            (&Method::PUT | &Method::DELETE, Target::Policy { tenant, policy }) => {
                let key = key(&tenant, &policy)?;
                Ok(self.later(|this| async move { this.write(&key, request).await }))
            }
            (_, Target::Policy { .. }) => Err(Failure::method_not_allowed("GET, HEAD, PUT, DELETE")),
            (&Method::GET | &Method::HEAD, Target::Tenant(tenant)) => {
                let tenant = tenant.tenant().map_err(|error| invalid(&error))?;
                Ok(self.later(|this| async move { this.list(&tenant, started).await }))
            }
            (_, Target::Tenant(_)) => Err(Failure::method_not_allowed("GET, HEAD")),
            (&Method::GET | &Method::HEAD, Target::Health) => Ok(Reply::Ready(self.health())),
            (_, Target::Health) => Err(Failure::method_not_allowed("GET, HEAD")),
            (&Method::POST, Target::Decide) => {
                Ok(self.answer(|this| async move { this.decide(request).await }))
            }
            (&Method::POST, Target::Results) => {
                Ok(self.answer(|this| async move { this.results(request).await }))
            }
            (&Method::POST, Target::DryRun) => {
                Ok(self.answer(|this| async move { this.dry_run(request).await }))
            }
            (_, Target::Decide | Target::Results | Target::DryRun) => {
                Err(Failure::method_not_allowed("POST"))
            }
            (&Method::GET | &Method::HEAD, Target::Complexity { tenant, policy }) => {
                let key = key(&tenant, &policy)?;
                Ok(self.answer(|this| async move { this.complexity(&key).await }))
            }
            (_, Target::Complexity { .. }) => Err(Failure::method_not_allowed("GET, HEAD")),
            // A tunnel is not ours to open, and an echo would show the token that this sidecar adds for HEIR.
            (&Method::CONNECT | &Method::TRACE, Target::Other) => Err(Failure::new(
                ErrorCode::MethodNotAllowed,
                "CONNECT and TRACE are not passed on",
            )
            .closing()),
            (_, Target::Other) => Ok(self.later(|this| async move { this.forward(request).await })),
        }
    }

    /// An answer that waits for the request's body and for extensions, and takes a place among the requests that wait
    /// for HEIR only if it has to.
    fn answer<F>(self: &Arc<Self>, handle: impl FnOnce(Arc<Self>) -> F) -> Reply
    where
        F: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let (this, answering) = (self.clone(), handle(self.clone()));
        Reply::Later(Box::pin(async move {
            answering.await.unwrap_or_else(|failure| this.fail(failure))
        }))
    }

    /// An answer that waits for HEIR or the disk.
    fn later<F>(self: &Arc<Self>, handle: impl FnOnce(Arc<Self>) -> F) -> Reply
    where
        F: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let waiting = self.waiting.clone();
        self.answer(|this| {
            let answering = handle(this);
            async move { waiting.admit(answering).await }
        })
    }

    async fn forward(&self, request: Request<Incoming>) -> Result<Response, Failure> {
        match &self.upstream {
            Some(upstream) => upstream.forwarder.forward(request).await,
            None => Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such path here, and no HEIR to forward to",
            )),
        }
    }
}

impl Handler for Router {
    fn handle(self: &Arc<Self>, request: Request<Incoming>, _: Peer) -> Reply {
        self.route(request)
            .unwrap_or_else(|failure| Reply::Ready(self.fail(failure)))
    }
}

fn key(tenant: &PathId<'_>, policy: &PathId<'_>) -> Result<Key, Failure> {
    Ok((
        tenant.tenant().map_err(|error| invalid(&error))?,
        policy.policy().map_err(|error| invalid(&error))?,
    ))
}

fn invalid(error: &dyn std::error::Error) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, error.to_string())
}
