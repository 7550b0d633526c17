//! Requests to web servers and registries of modules: what comes back is bounded in size and time, and no redirection is
//! followed here.

use std::{sync::OnceLock, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use crate::{
    heir::{TlsConfig, client_config},
    telemetry::chain,
};

/// What a head may take, and a body as much again.
pub(in crate::extensions) const TIMEOUT: Duration = Duration::from_secs(60);

type Https = Client<hyper_rustls::HttpsConnector<HttpConnector>, Full<Bytes>>;

/// What kept a request from its answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trouble {
    /// The server is not reachable, or does not answer as it should. It may later.
    Away,
    /// What it gives is not what was asked for. Asking again costs all of it again.
    WrongContent,
    /// It would be the same the next time.
    Lasting,
}

/// Why something was not had from a server.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{reason}")]
pub struct WebError {
    /// For people, with a remedy where there is one.
    pub reason: String,
    /// What follows of it.
    pub trouble: Trouble,
}

impl WebError {
    pub(in crate::extensions) fn away(reason: impl Into<String>) -> Self {
        Self::new(reason, Trouble::Away)
    }

    pub(in crate::extensions) fn wrong(reason: impl Into<String>) -> Self {
        Self::new(reason, Trouble::WrongContent)
    }

    pub(in crate::extensions) fn lasting(reason: impl Into<String>) -> Self {
        Self::new(reason, Trouble::Lasting)
    }

    fn new(reason: impl Into<String>, trouble: Trouble) -> Self {
        let reason = reason.into();
        Self { reason, trouble }
    }
}

/// An answer, whole.
#[derive(Debug)]
pub(in crate::extensions) struct WebAnswer {
    pub(in crate::extensions) status: StatusCode,
    pub(in crate::extensions) headers: HeaderMap,
    pub(in crate::extensions) body: Bytes,
}

/// The client. Its TLS settings are made for the first request: most sidecars make none.
#[derive(Debug, Default)]
pub(in crate::extensions) struct Web {
    client: OnceLock<Result<Https, String>>,
}

impl Web {
    /// Sends a request, and takes the whole answer.
    ///
    /// # Errors
    /// When there is none in time, or its body has more bytes than this.
    pub(in crate::extensions) async fn send(
        &self,
        mut request: Request<Full<Bytes>>,
        max_bytes: u64,
    ) -> Result<WebAnswer, WebError> {
        let client = self
            .client
            .get_or_init(https_client)
            .as_ref()
            .map_err(WebError::away)?;
        let agent = http::HeaderValue::from_static("beamline-sidecar");
        request.headers_mut().insert(http::header::USER_AGENT, agent);
        let response = timeout(TIMEOUT, client.request(request))
            .await
            .map_err(|_elapsed| WebError::away(format!("no answer within {} s", TIMEOUT.as_secs())))?
            .map_err(|error| WebError::away(format!("cannot be fetched: {}", chain(&error))))?;
        let (head, body) = response.into_parts();
        let most = usize::try_from(max_bytes).unwrap_or(usize::MAX);
        let body = timeout(TIMEOUT, Limited::new(body, most).collect())
            .await
            .map_err(|_elapsed| WebError::away(format!("not whole within {} s", TIMEOUT.as_secs())))?
            .map_err(|error| {
                if error.is::<LengthLimitError>() {
                    WebError::wrong(format!("cannot be fetched: it has more than {max_bytes} bytes"))
                } else {
                    WebError::away(format!("cannot be fetched: {}", chain(&*error)))
                }
            })?;
        Ok(WebAnswer {
            status: head.status,
            headers: head.headers,
            body: body.to_bytes(),
        })
    }
}

fn https_client() -> Result<Https, String> {
    let config = client_config(&TlsConfig::default(), true).map_err(|error| chain(&error))?;
    let mut http = HttpConnector::new();
    http.enforce_http(false);
    // Who may be spoken to without TLS is decided where the URL is made.
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_or_http()
        .enable_http1()
        .wrap_connector(http);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}
