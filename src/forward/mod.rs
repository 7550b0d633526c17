//! Requests that are not answered here go to HEIR unchanged, and HEIR's answers come back unchanged.

mod body;
mod headers;

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Uri, header, request::Parts};

pub use headers::Via;
pub(crate) use headers::{strip_hop_by_hop, strip_hop_by_hop_of_request};

use self::body::Unstalled;
use crate::{
    failure::{ErrorCode, Failure},
    heir::{HeirCall, HeirClient, HeirError},
    respond::{Body, Response},
};

/// The longest time that a client can ask HEIR to wait, as HEIR's own limit is.
const LONGEST_POLL: Duration = Duration::from_secs(60);

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

    /// Forwards a request. Its body is complete, so that HEIR never waits for a slow client, and never sees half of what one
    /// gave up. The answer's body is streamed as it arrives.
    ///
    /// # Errors
    /// When the request has been here before, or HEIR could not be asked.
    pub async fn forward(&self, mut parts: Parts, body: Bytes) -> Result<Response, Failure> {
        if self.via.has_passed(&parts.headers) {
            return Err(Failure::new(
                ErrorCode::LoopDetected,
                "this request has been here before: heir.url leads back to this sidecar",
            ));
        }
        strip_hop_by_hop_of_request(&mut parts.headers)?;
        for name in [header::HOST, header::EXPECT] {
            parts.headers.remove(name);
        }
        self.via.add(&mut parts.headers);
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let wait = wait(&parts.uri);
        let call = match wait {
            Some(_) => HeirCall::ForwardedPoll,
            None => HeirCall::Forward,
        };
        let timeout = self.client.timeout() + wait.unwrap_or_default();
        let sent = self
            .client
            .send(call, parts.method, path, parts.headers, body, timeout)
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
                let body = Body::streamed(Unstalled::new(body, timeout));
                Ok(Response::from_parts(parts, body))
            }
            Err(error) => {
                tracing::debug!(error = error.chain(), "A request could not be forwarded.");
                Err(failure(&error))
            }
        }
    }
}

/// The answer where HEIR gave none: 504 where it did not answer in time, 502 where it could not be asked, and 503 where
/// this sidecar forwards as much as it may already.
fn failure(error: &HeirError) -> Failure {
    let mut failure = error.failure();
    match error {
        HeirError::Connect(_) | HeirError::Interrupted(_) | HeirError::Paused { .. } => {
            failure.code = ErrorCode::HeirError;
        }
        HeirError::PoolExhausted => failure.code = ErrorCode::Overloaded,
        _ => {}
    }
    failure
}

/// How long a request asks HEIR to wait for something to happen: `GET /api/v1/changes?wait_ms=…`.
fn wait(uri: &Uri) -> Option<Duration> {
    if uri.path() != "/api/v1/changes" {
        return None;
    }
    let mut parameters = uri.query().unwrap_or_default().split('&');
    let wait = parameters.find_map(|parameter| parameter.strip_prefix("wait_ms="))?;
    let wait = wait.parse().map_or(LONGEST_POLL, Duration::from_millis);
    Some(wait.min(LONGEST_POLL))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_poll_has_the_time_that_it_asks_for() {
        for (uri, expected) in [
            ("/api/v1/changes?since=1&wait_ms=30000", Some(30_000)),
            ("/api/v1/changes?wait_ms=0", Some(0)),
            ("/api/v1/changes?wait_ms=86400000&since=1", Some(60_000)),
            ("/api/v1/changes?wait_ms=99999999999999999999999", Some(60_000)),
            ("/api/v1/changes?since=1", None),
            ("/api/v1/changes", None),
            ("/api/v1/extensions?wait_ms=30000", None),
        ] {
            let expected = expected.map(Duration::from_millis);
            assert_eq!(wait(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
