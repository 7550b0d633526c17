//! Requests that are not answered here go to HEIR unchanged, and HEIR's answers come back unchanged.

mod headers;

use std::sync::Arc;

use http::Request;
use http_body_util::Either;
use hyper::body::Incoming;

pub use headers::Via;
pub(crate) use headers::strip_hop_by_hop;

use crate::{
    failure::{ErrorCode, Failure},
    heir::{HeirCall, HeirClient, HeirError},
    respond::{Body, Response},
};

/// The reverse proxy for all other requests.
#[derive(Debug)]
pub struct Forwarder {
    client: Arc<HeirClient>,
    via: Via,
}

impl Forwarder {
    /// Forwards over this client.
    pub fn new(client: Arc<HeirClient>) -> Self {
        Self {
            client,
            via: Via::new(),
        }
    }

    /// Forwards a request. Its body is streamed as it arrives, and so is the answer's.
    ///
    /// # Errors
    /// When the request has been here before, or HEIR could not be asked.
    pub async fn forward(&self, request: Request<Incoming>) -> Result<Response, Failure> {
        let (mut parts, body) = request.into_parts();
        if self.via.has_passed(&parts.headers) {
            return Err(Failure::new(
                ErrorCode::LoopDetected,
                "this request has been here before: heir.url leads back to this sidecar",
            ));
        }
        strip_hop_by_hop(&mut parts.headers);
        parts.headers.remove(http::header::HOST);
        self.via.add(&mut parts.headers);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let sent = self
            .client
            .send(
                HeirCall::Forward,
                parts.method,
                path,
                parts.headers,
                Either::Right(body),
                self.client.timeout(),
            )
            .await;
        match sent {
            // No upgrade was forwarded, so no client may be answered that the protocol is switched.
            Ok(response) if response.status().is_informational() => Err(Failure::new(
                ErrorCode::HeirError,
                format!("HEIR answered {}, which was not asked for", response.status()),
            )),
            Ok(response) => {
                let (mut parts, body) = response.into_parts();
                strip_hop_by_hop(&mut parts.headers);
                Ok(Response::from_parts(parts, Body::Streamed(body)))
            }
            Err(error) => {
                tracing::debug!(error = error.chain(), "A request could not be forwarded.");
                Err(match error {
                    HeirError::Connect(_) | HeirError::Interrupted(_) => {
                        Failure::new(ErrorCode::HeirError, error.to_string()).retry_after_seconds(1)
                    }
                    error => error.failure(),
                })
            }
        }
    }
}
