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
    metrics::HeirCall,
    resolver::Resolver,
    tls::{self, TlsError},
};

/// When the system asks the other end of a silent connection whether it is still there, and when a connection has ended on
/// which nothing is acknowledged. Where packets are lost without a word, it would otherwise be used until a time-out is over.
#[derive(Debug, Clone, Copy)]
struct Patience {
    asks_after: Duration,
    asks_every: Duration,
    ends_after: Duration,
}

const USUAL: Patience = Patience {
    asks_after: Duration::from_secs(2),
    asks_every: Duration::from_secs(1),
    ends_after: Duration::from_secs(5),
};

/// A long poll is silent for as long as nothing happens, and costs nothing to ask again: so it is better asked again too early
/// than left where nothing can come of it. The system looks at whole seconds: one question without an answer ends it, and it
/// is asked again at once.
const OF_A_POLL: Patience = Patience {
    asks_after: Duration::from_secs(1),
    asks_every: Duration::from_secs(1),
    ends_after: Duration::from_millis(1_900),
};

/// What is read from HEIR at one time, and so the longest head of an answer. hyper's own 400 KiB, several of which wait while
/// a snapshot is parsed, would be a good part of the memory that a sidecar has.
const READ_AT_ONCE: usize = 64 << 10;

type Connector = HttpsConnector<HttpConnector<Resolver>>;

/// Makes connections and keeps those that are idle.
#[derive(Debug, Clone)]
pub(super) struct Connections {
    client: Kept,
    polls: Kept,
}

impl Connections {
    /// Reads the TLS files. No connection is made yet.
    pub(super) fn build(
        config: &HeirConfig,
        base: &BaseUrl,
        timeout: Duration,
        resolver: Resolver,
    ) -> Result<Self, TlsError> {
        let tls = tls::client_config(&config.tls, base.is_tls())?;
        let kept = |patience: Patience, max_idle| {
            let mut connector = HttpConnector::new_with_resolver(resolver.clone());
            connector.enforce_http(false);
            connector.set_nodelay(true);
            connector.set_connect_timeout(Some(timeout));
            connector.set_keepalive(Some(patience.asks_after));
            connector.set_keepalive_interval(Some(patience.asks_every));
            connector.set_tcp_user_timeout(Some(patience.ends_after));
            let connector = hyper_rustls::HttpsConnectorBuilder::new()
                .with_tls_config(tls.clone())
                .https_or_http()
                .enable_http1()
                .wrap_connector(connector);
            Kept::of(connector, max_idle)
        };
        Ok(Self {
            client: kept(USUAL, config.pool.max_idle),
            polls: kept(OF_A_POLL, config.pool.max_idle.min(1)),
        })
    }

    /// The same, without a connection.
    pub(super) fn anew(&self) -> Self {
        Self {
            client: self.client.anew(),
            polls: self.polls.anew(),
        }
    }

    /// For a call of this kind.
    pub(super) fn client(&self, call: HeirCall) -> &Client<Connector, Full<Bytes>> {
        match call {
            HeirCall::Changes => &self.polls.client,
            _ => &self.client.client,
        }
    }
}

/// Connections with the same patience.
#[derive(Debug, Clone)]
struct Kept {
    connector: Connector,
    max_idle: usize,
    client: Client<Connector, Full<Bytes>>,
}

impl Kept {
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

    fn anew(&self) -> Self {
        Self::of(self.connector.clone(), self.max_idle)
    }
}
