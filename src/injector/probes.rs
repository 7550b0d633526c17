//! Probes and metrics of the injector, without encryption: the kubelet and Prometheus ask from outside of the pod.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

use http::{HeaderValue, Method, StatusCode};
use hyper::body::Incoming;
use prometheus::Registry;

use super::webhook::refusal;
use crate::{
    listener::{Handler, Peer, Reply},
    respond::{Response, with_body},
    telemetry::registry::scrape,
};

/// Why the injector is not ready, if it is not.
#[derive(Debug, Default)]
pub(super) struct Readiness {
    /// The API server does not trust the certificate yet.
    pub(super) is_untrusted: AtomicBool,
    /// It stops.
    pub(super) is_stopping: AtomicBool,
}

impl Readiness {
    fn fault(&self) -> Option<&'static str> {
        if self.is_stopping.load(Relaxed) {
            Some("stopping")
        } else if self.is_untrusted.load(Relaxed) {
            Some("the webhook's configuration does not trust the certificate yet")
        } else {
            None
        }
    }
}

/// Answers `/live`, `/ready` and `/metrics`.
#[derive(Debug)]
pub(super) struct Probes {
    pub(super) readiness: Arc<Readiness>,
    pub(super) registry: Registry,
}

impl Handler for Probes {
    fn handle(self: &Arc<Self>, request: http::Request<Incoming>, _peer: Peer) -> Reply {
        let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
        Reply::Ready(match request.uri().path() {
            _ if !is_read => refusal(StatusCode::METHOD_NOT_ALLOWED, "ask with GET"),
            "/live" => text(StatusCode::OK, "live\n".into()),
            "/ready" => match self.readiness.fault() {
                None => text(StatusCode::OK, "ready\n".into()),
                Some(fault) => text(StatusCode::SERVICE_UNAVAILABLE, format!("{fault}\n").into()),
            },
            "/metrics" => match scrape(&self.registry) {
                Ok(metrics) => with_body(
                    StatusCode::OK,
                    HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
                    metrics.into(),
                ),
                Err(error) => refusal(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
            },
            _ => refusal(StatusCode::NOT_FOUND, "there are /live, /ready and /metrics"),
        })
    }
}

fn text(status: StatusCode, body: bytes::Bytes) -> Response {
    with_body(
        status,
        HeaderValue::from_static("text/plain; charset=utf-8"),
        body,
    )
}
