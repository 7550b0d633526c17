//! The few calls of the Kubernetes API that the injector makes: one Secret and one webhook's configuration, as JSON values, so
//! that fields which it does not know stay.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::HttpsConnector;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioTimer},
};
use serde_json::Value;
use tokio::time::timeout;

use crate::heir::{TlsConfig, client_config};

/// The largest answer.
const MAX_ANSWER_BYTES: usize = 4 << 20;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The API server, with the token of a service account.
#[derive(Debug)]
pub(super) struct ApiServer {
    base: String,
    /// Read again for each call: the kubelet exchanges it every hour.
    token: PathBuf,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
}

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum CallError {
    /// Another replica was faster.
    #[error("the object was changed meanwhile")]
    Conflict,
    /// The API server refused.
    #[error("{method} {path}: {status} {message}")]
    Refused {
        method: Method,
        path: String,
        status: StatusCode,
        message: String,
    },
    /// It did not answer.
    #[error("{method} {path}: {reason}")]
    Unanswered {
        method: Method,
        path: String,
        reason: String,
    },
}

impl ApiServer {
    /// # Errors
    /// When the authorities of the API server cannot be read.
    pub(super) fn new(base: &str, service_account: &Path) -> Result<Self, String> {
        let tls = TlsConfig {
            ca_file: service_account.join("ca.crt"),
            ..TlsConfig::default()
        };
        let config = client_config(&tls, base.starts_with("https:")).map_err(|error| error.to_string())?;
        let mut connector = HttpConnector::new();
        connector.enforce_http(false);
        connector.set_connect_timeout(Some(TIMEOUT));
        let connector = hyper_rustls::HttpsConnectorBuilder::new()
            .with_tls_config(config)
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .build(connector);
        Ok(Self {
            base: base.trim_end_matches('/').to_owned(),
            token: service_account.join("token"),
            client,
        })
    }

    pub(super) async fn read(&self, path: &str) -> Result<Value, CallError> {
        self.call(Method::GET, path, "application/json", None).await
    }

    /// Replaces an object, if it is still the version that it says it is.
    pub(super) async fn replace(&self, path: &str, object: &Value) -> Result<Value, CallError> {
        self.call(Method::PUT, path, "application/json", Some(object))
            .await
    }

    /// Applies a JSON patch.
    pub(super) async fn patch(&self, path: &str, patch: &Value) -> Result<Value, CallError> {
        self.call(Method::PATCH, path, "application/json-patch+json", Some(patch))
            .await
    }

    async fn call(
        &self,
        method: Method,
        path: &str,
        content_type: &str,
        body: Option<&Value>,
    ) -> Result<Value, CallError> {
        let unanswered = |reason: String| CallError::Unanswered {
            method: method.clone(),
            path: path.to_owned(),
            reason,
        };
        let token = fs::read_to_string(&self.token)
            .map_err(|error| unanswered(format!("{}: {error}", self.token.display())))?;
        let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
        let request = Request::builder()
            .method(method.clone())
            .uri(format!("{}{path}", self.base))
            .header(header::AUTHORIZATION, format!("Bearer {}", token.trim()))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, content_type)
            .body(Full::new(bytes))
            .map_err(|error| unanswered(error.to_string()))?;
        let exchange = async {
            let answer = self
                .client
                .request(request)
                .await
                .map_err(|error| error.to_string())?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER_BYTES).collect().await;
            Ok::<_, String>((status, body.map_err(|error| error.to_string())?.to_bytes()))
        };
        let (status, body) = timeout(TIMEOUT, exchange)
            .await
            .map_err(|_| unanswered("no answer in time".to_owned()))?
            .map_err(&unanswered)?;
        let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
        if status.is_success() {
            return Ok(answer);
        }
        // A JSON patch whose test fails is answered 422 by API servers of old, and 409 by none for certain.
        let is_outdated = method == Method::PATCH && status == StatusCode::UNPROCESSABLE_ENTITY;
        if status == StatusCode::CONFLICT || is_outdated {
            return Err(CallError::Conflict);
        }
        Err(CallError::Refused {
            message: answer["message"].as_str().unwrap_or_default().to_owned(),
            method,
            path: path.to_owned(),
            status,
        })
    }
}
