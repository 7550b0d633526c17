//! The webhook that the API server calls: `POST /inject`.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::{sync::Semaphore, time::timeout};

use super::{fragment_file::FragmentFile, metrics::InjectorMetrics, review::answer};
use crate::{
    listener::{Handler, Peer, Reply},
    respond::{JSON, Response, with_body},
};

/// The largest review: the API server takes objects of up to 3 MiB.
const MAX_BODY_BYTES: usize = 8 << 20;

/// Reviews whose bodies are in memory at one time.
const MAX_BODIES: usize = 16;

/// How long a body may take; the API server waits for five seconds.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Answers the API server.
#[derive(Debug)]
pub(super) struct Webhook {
    fragment: Arc<FragmentFile>,
    metrics: Arc<InjectorMetrics>,
    bodies: Semaphore,
}

impl Webhook {
    pub(super) fn new(fragment: Arc<FragmentFile>, metrics: Arc<InjectorMetrics>) -> Self {
        Self {
            fragment,
            metrics,
            bodies: Semaphore::new(MAX_BODIES),
        }
    }

    async fn review(&self, body: Incoming) -> Response {
        let Ok(_room) = self.bodies.acquire().await else {
            return refusal(StatusCode::SERVICE_UNAVAILABLE, "the webhook is stopping");
        };
        let body = match timeout(BODY_TIMEOUT, whole(body)).await {
            Ok(Ok(body)) => body,
            Ok(Err((status, message))) => return self.malformed(status, message),
            Err(_elapsed) => {
                return self.malformed(StatusCode::REQUEST_TIMEOUT, "the body did not arrive in time");
            }
        };
        let begun = Instant::now();
        match answer(&body, &self.fragment.current()) {
            Ok(answer) => {
                let outcome = answer.verdict.as_str();
                self.metrics.reviews.with_label_values(&[outcome]).inc();
                self.metrics
                    .review_seconds
                    .with_label_values(&[outcome])
                    .observe(begun.elapsed().as_secs_f64());
                with_body(StatusCode::OK, JSON, answer.body.into())
            }
            Err(message) => self.malformed(StatusCode::BAD_REQUEST, &message),
        }
    }

    /// The API server makes a failure of the webhook of this, which its `failurePolicy` decides about.
    fn malformed(&self, status: StatusCode, message: &str) -> Response {
        self.metrics.reviews.with_label_values(&["malformed"]).inc();
        tracing::warn!(reason = message, "A request was no review that can be answered.");
        refusal(status, message)
    }
}

impl Handler for Webhook {
    fn handle(self: &Arc<Self>, request: http::Request<Incoming>, _peer: Peer) -> Reply {
        if request.uri().path() != "/inject" {
            return Reply::Ready(refusal(StatusCode::NOT_FOUND, "reviews are answered at /inject"));
        }
        if request.method() != Method::POST {
            return Reply::Ready(refusal(StatusCode::METHOD_NOT_ALLOWED, "send reviews with POST"));
        }
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let is_json = content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/json"));
        if !is_json {
            return Reply::Ready(refusal(
                StatusCode::UNSUPPORTED_MEDIA_TYPE,
                "send reviews as application/json",
            ));
        }
        let webhook = self.clone();
        Reply::Later(Box::pin(async move { webhook.review(request.into_body()).await }))
    }
}

async fn whole(mut body: Incoming) -> Result<Vec<u8>, (StatusCode, &'static str)> {
    let mut received = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| (StatusCode::BAD_REQUEST, "the body did not arrive in full"))?;
        if let Some(data) = frame.data_ref() {
            if received.len() + data.len() > MAX_BODY_BYTES {
                return Err((StatusCode::PAYLOAD_TOO_LARGE, "the body is larger than 8 MiB"));
            }
            received.extend_from_slice(data);
        }
    }
    Ok(received)
}

/// An answer that is no review.
pub(super) fn refusal(status: StatusCode, message: &str) -> Response {
    let text = http::HeaderValue::from_static("text/plain; charset=utf-8");
    let mut response = with_body(status, text, Bytes::from(format!("{message}\n")));
    // A body that was not read would be taken for the next request.
    response
        .headers_mut()
        .insert(header::CONNECTION, http::HeaderValue::from_static("close"));
    response
}
