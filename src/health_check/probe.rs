//! One check: a request, of whose answer only the status counts.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use tokio::time::timeout;

use super::config::HealthChecksConfig;
use crate::heir::tls::{self, TlsError};

/// The most bytes of an answer's body that are read, so that its connection can be used again.
const MOST_BODY: usize = 64 << 10;

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// 2xx or 3xx.
    Healthy,
    /// An answer with another status than 2xx or 3xx.
    Unhealthy,
    /// No answer in time.
    Timeout,
    /// No connection, or one that broke.
    Unreachable,
}

impl Outcome {
    /// The label of the metric.
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// The client that checks are made with.
#[derive(Debug)]
pub(super) struct Prober {
    http: Client<hyper_rustls::HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Prober {
    pub(super) fn new(config: &HealthChecksConfig, uses_tls: bool) -> Result<Self, TlsError> {
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_nodelay(true);
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(&config.tls, uses_tls)?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let http = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(90))
            .pool_max_idle_per_host(1)
            .build(connector);
        Ok(Self { http })
    }

    /// Makes one check. The time is that until the answer's head.
    pub(super) async fn ask(&self, uri: Uri, limit: Duration) -> (Outcome, Duration) {
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let headers = request.headers_mut();
        headers.insert(
            header::USER_AGENT,
            HeaderValue::from_static("beamline-sidecar-health-check"),
        );
        headers.insert(header::ACCEPT, HeaderValue::from_static("*/*"));
        let began = Instant::now();
        let answer = timeout(limit, self.http.request(request)).await;
        let took = began.elapsed();
        let outcome = match answer {
            Err(_elapsed) => Outcome::Timeout,
            Ok(Err(_error)) => Outcome::Unreachable,
            Ok(Ok(response)) => {
                let status = response.status();
                // A body that cannot be read in time and in full costs its connection, and nothing else.
                let _unread = timeout(limit.saturating_sub(took), skip(response.into_body())).await;
                if status.is_success() || status.is_redirection() {
                    Outcome::Healthy
                } else {
                    Outcome::Unhealthy
                }
            }
        };
        (outcome, took)
    }
}

async fn skip(mut body: hyper::body::Incoming) {
    let mut left = MOST_BODY;
    while let Some(Ok(frame)) = body.frame().await {
        let length = frame.data_ref().map_or(0, Bytes::len);
        match left.checked_sub(length) {
            Some(less) => left = less,
            None => return,
        }
    }
}
