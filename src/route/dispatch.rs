//! Which method and path leads where.

use std::{future::Future, sync::Arc, time::Instant};

use futures_util::TryFutureExt;
use http::{HeaderValue, Method, Request, header};
use hyper::body::Incoming;

use super::{
    body::Received,
    guard::{self, Framing},
    lookup,
    path::{PathId, Target},
    router::Router,
};
use crate::{
    failure::{ErrorCode, Failure},
    intake::Client,
    listener::{Handler, Peer, Reply, discard},
    respond::Response,
    snapshot::Key,
};

impl Router {
    fn route(
        self: &Arc<Self>,
        request: Request<Incoming>,
        framing: Framing,
        peer: Peer,
        started: Instant,
    ) -> Result<Reply, Failure> {
        let target = Target::parse(request.uri())
            .map_err(|error| Failure::new(ErrorCode::InvalidRequest, error.to_string()).closing())?;
        match (request.method(), target) {
            (&Method::GET | &Method::HEAD, Target::Policy { tenant, policy }) => {
                match self.lookup(tenant.as_str(), policy.as_str(), request.headers(), started) {
                    lookup::Answer::Now(response) => Ok(Reply::Ready(response)),
                    lookup::Answer::AskHeir => {
                        let (key, headers) = (key(&tenant, &policy)?, request.headers().clone());
                        Ok(self
                            .answer(|this| async move { this.lookup_in_heir(key, headers, started).await }))
                    }
                }
            }
            (&Method::PUT | &Method::DELETE, Target::Policy { tenant, policy }) => {
                framing.must_be_told()?;
                let key = key(&tenant, &policy)?;
                let client = Client::at(peer.ip());
                Ok(self.answer(|this| async move { this.write(key, request, client).await }))
            }
            (_, Target::Policy { .. }) => Err(Failure::method_not_allowed("GET, HEAD, PUT, DELETE")),
            (&Method::GET | &Method::HEAD, Target::Tenant(tenant)) => {
                let tenant = tenant.tenant().map_err(|error| invalid(&error))?;
                let client = Client::at(peer.ip());
                Ok(self.answer(|this| async move { this.list(tenant, client, started).await }))
            }
            (_, Target::Tenant(_)) => Err(Failure::method_not_allowed("GET, HEAD")),
            (&Method::GET | &Method::HEAD, Target::Health) => Ok(Reply::Ready(self.health())),
            (_, Target::Health) => Err(Failure::method_not_allowed("GET, HEAD")),
            (&Method::POST, target @ (Target::Decide | Target::Results | Target::DryRun)) => {
                framing.must_be_told()?;
                let client = Client::at(peer.ip());
                Ok(match target {
                    Target::Decide => {
                        let (head, body) = request.into_parts();
                        self.answer(|this| this.decide(head.headers, body, client))
                    }
                    Target::Results => self.answer(|this| async move { this.results(request, client).await }),
                    _ => self.answer(|this| async move { this.dry_run(request, client).await }),
                })
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
            (_, Target::Other) => {
                framing.must_be_told()?;
                let client = Client::at(peer.ip());
                Ok(self.answer(|this| async move { this.forward(request, client).await }))
            }
        }
    }

    /// The answer to a request that is refused by its head.
    fn refuse(self: &Arc<Self>, request: Request<Incoming>, failure: Failure) -> Reply {
        if failure.code != ErrorCode::PayloadTooLarge {
            return Reply::Ready(self.fail(failure));
        }
        self.answer(|_| async move {
            let (head, body) = request.into_parts();
            discard(&head.headers, body).await;
            Err(failure)
        })
    }

    /// An answer that waits: for the request's body, for HEIR or the disk, or for extensions.
    fn answer<F>(self: &Arc<Self>, handle: impl FnOnce(Arc<Self>) -> F) -> Reply
    where
        F: Future<Output = Result<Response, Failure>> + Send + 'static,
    {
        let (this, answering) = (self.clone(), handle(self.clone()));
        // An async block would hold the future twice: as what it was given, and as what it waits for.
        Reply::Later(Box::pin(
            answering.unwrap_or_else(move |failure| this.fail(failure)),
        ))
    }

    async fn forward(&self, request: Request<Incoming>, client: Client) -> Result<Response, Failure> {
        let Some(upstream) = &self.upstream else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such path here, and no HEIR to forward to",
            ));
        };
        let (parts, body) = request.into_parts();
        let Received { bytes, room } = self.read(body, client).await?;
        let place = self.waiting.forwarded_place()?;
        let response = upstream.forwarder.forward(parts, bytes).await?;
        drop(room);
        Ok(response.map(|body| body.holding(place)))
    }
}

impl Handler for Router {
    fn handle(self: &Arc<Self>, request: Request<Incoming>, peer: Peer) -> Reply {
        let started = Instant::now();
        let framing = match guard::check(&request, self.limits.max_body_bytes) {
            Ok(framing) => framing,
            Err(failure) => return self.refuse(request, failure),
        };
        let reply = self
            .route(request, framing, peer, started)
            .unwrap_or_else(|failure| Reply::Ready(self.fail(failure)));
        if framing.closes() { closing(reply) } else { reply }
    }
}

/// The same answer, and the end of the connection.
fn closing(reply: Reply) -> Reply {
    fn close(mut response: Response) -> Response {
        let headers = response.headers_mut();
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
        response
    }
    match reply {
        Reply::Ready(response) => Reply::Ready(close(response)),
        Reply::Later(waiting) => Reply::Later(Box::pin(async move { close(waiting.await) })),
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
