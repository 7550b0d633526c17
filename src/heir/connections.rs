//! Connections to HEIR: how one is made, and the pool of those that are.

use std::time::Duration;

use bytes::Bytes;
use http_body_util::Full;
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};

use super::{
    base_url::BaseUrl,
    config::HeirConfig,
    resolver::Resolver,
    tls::{self, TlsError},
};

/// The system asks the other end whether it is still there: after this silence, this often, and so many times in vain.
/// Where packets are lost without a word, a long poll would otherwise be waited for until its time is over.
const KEEP_ALIVE_AFTER: Duration = Duration::from_secs(2);
const KEEP_ALIVE_EVERY: Duration = Duration::from_secs(1);
const KEEP_ALIVE_TIMES: u32 = 3;

/// For how long the other end may leave what was sent unacknowledged.
const UNACKNOWLEDGED: Duration = Duration::from_secs(5);

/// What is read from HEIR at one time, and so the longest head of an answer. hyper's own 400 KiB, several of which wait while
/// a snapshot is parsed, would be a good part of the memory that a sidecar has.
const READ_AT_ONCE: usize = 64 << 10;

type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// Makes connections and keeps those that are idle.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    connector: Connector,
    max_idle: usize,
    client: Client<Connector, Full<Bytes>>,
}

impl Connections {
    /// Reads the TLS files. No connection is made yet.
    pub(super) fn build(
        config: &HeirConfig,
        base: &BaseUrl,
        timeout: Duration,
        resolver: Resolver,
    ) -> Result<Self, TlsError> {
        let mut connector = HttpConnector::new_with_resolver(resolver);
        connector.enforce_http(false);
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(timeout));
        connector.set_keepalive(Some(KEEP_ALIVE_AFTER));
        connector.set_keepalive_interval(Some(KEEP_ALIVE_EVERY));
        connector.set_keepalive_retries(Some(KEEP_ALIVE_TIMES));
        connector.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(tls::client_config(&config.tls, base.is_tls())?)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        Ok(Self::of(connector, config.pool.max_idle))
    }

    fn of(connector: Connector, max_idle: usize) -> Self {
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(Duration::from_secs(60))
            .pool_max_idle_per_host(max_idle)
            .http1_max_buf_size(READ_AT_ONCE)
            .build(connector.clone());
        Self {
            connector,
            max_idle,
            client,
        }
    }

    /// The same, without a connection.
    pub(super) fn anew(&self) -> Self {
        Self::of(self.connector.clone(), self.max_idle)
    }

    pub(super) fn client(&self) -> &Client<Connector, Full<Bytes>> {
        &self.client
    }
}
