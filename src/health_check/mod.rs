//! Active checks of the health of providers, so that a decision can leave out those that fail them.
//!
//! Off unless configured. The addresses come from the operator, or from policies if the operator lists their hosts;
//! redirects are not followed, and only the status of an answer counts. An address is requested once per interval,
//! however many tenants name it.

mod address;
mod config;
mod metrics;
mod runner;
mod targets;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
pub use config::HealthChecksConfig;
use http::{HeaderValue, Request, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
pub use metrics::HealthCheckMetrics;
use tokio::time::timeout;

pub use self::address::InvalidAddress;
use self::targets::Rules;
use crate::heir::tls::{self, TlsError};

/// The most bytes of an answer's body that are read, so that its connection can be used again.
const MOST_BODY: usize = 64 << 10;

/// Why the checker cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum CheckerError {
    #[error("health_checks.endpoints: the address of `{provider}` {source}")]
    Endpoint {
        provider: String,
        source: InvalidAddress,
    },
    #[error("health_checks.allow: `{host}` {source}")]
    Allow { host: String, source: InvalidAddress },
    #[error("health_checks.tls")]
    Tls(#[from] TlsError),
}

/// The outcome of a check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Healthy,
    /// An answer with another status than 2xx or 3xx.
    Unhealthy,
    Timeout,
    Unreachable,
}

impl Outcome {
    const fn as_str(self) -> &'static str {
        match self {
            Self::Healthy => "healthy",
            Self::Unhealthy => "unhealthy",
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
        }
    }
}

/// Checks the health of providers.
#[derive(Debug)]
pub struct HealthChecker {
    config: HealthChecksConfig,
    rules: Rules,
    asker: Arc<Asker>,
    metrics: Arc<HealthCheckMetrics>,
}

impl HealthChecker {
    /// Checks the addresses and reads the TLS files. No connection is made yet.
    pub fn connect(
        config: HealthChecksConfig,
        metrics: Arc<HealthCheckMetrics>,
    ) -> Result<Self, CheckerError> {
        let mut rules = Rules::default();
        for (provider, text) in &config.endpoints {
            let uri = address::parse(text).map_err(|source| CheckerError::Endpoint {
                provider: provider.clone(),
                source,
            })?;
            rules.endpoints.insert(provider.clone(), uri);
        }
        for host in &config.allow {
            rules.allowed.add(host).map_err(|source| CheckerError::Allow {
                host: host.clone(),
                source,
            })?;
        }
        let over_tls = |uri: &Uri| uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let uses_tls =
            config.enabled && (!rules.allowed.is_empty() || rules.endpoints.values().any(over_tls));
        let asker = Arc::new(Asker::new(&config, uses_tls)?);
        Ok(Self {
            config,
            rules,
            asker,
            metrics,
        })
    }
}

/// The client that checks are made with.
#[derive(Debug)]
struct Asker {
    http: Client<hyper_rustls::HttpsConnector<HttpConnector>, Empty<Bytes>>,
}

impl Asker {
    fn new(config: &HealthChecksConfig, uses_tls: bool) -> Result<Self, TlsError> {
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
    async fn ask(&self, uri: Uri, limit: Duration) -> (Outcome, Duration) {
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
