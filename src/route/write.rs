//! PUT and DELETE of a policy.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{Router, WRITE};
use crate::{
    failure::{ErrorCode, Failure},
    forward::strip_hop_by_hop,
    respond::{self, JSON, Response},
    snapshot::Key,
    write::{Change, Written},
};

impl Router {
    pub(super) async fn write(&self, key: &Key, request: Request<Incoming>) -> Result<Response, Failure> {
        let (mut parts, body) = request.into_parts();
        let body = self.read(body).await?;
        strip_hop_by_hop(&mut parts.headers);
        for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
            parts.headers.remove(name);
        }
        let change = if parts.method == Method::PUT {
            Change::Put(body)
        } else {
            Change::Delete
        };
        // Made to the end even if the client leaves: what is in the journal's file must be in memory as well.
        let (writer, key) = (self.writer.clone(), key.clone());
        let headers = parts.headers;
        let written = tokio::spawn(async move { writer.write(&key, change, &headers).await });
        let written = written
            .await
            .map_err(|error| Failure::new(ErrorCode::InternalError, error.to_string()))?;
        match written? {
            Written::Forwarded(replied) => {
                let mut headers = replied.headers;
                strip_hop_by_hop(&mut headers);
                headers.remove(header::CONTENT_LENGTH);
                let mut response = respond::with_body(replied.status, JSON, replied.body);
                *response.headers_mut() = headers;
                Ok(response)
            }
            Written::Queued { status, etag } => {
                let mut response = if status == StatusCode::NO_CONTENT {
                    respond::empty(status)
                } else {
                    respond::json(status, &serde_json::json!({"ok": true, "queued": true}))
                };
                let headers: &mut HeaderMap = response.headers_mut();
                headers.insert(WRITE, HeaderValue::from_static("queued"));
                if let Some(etag) = etag {
                    headers.insert(header::ETAG, etag.header());
                }
                Ok(response)
            }
        }
    }

    /// Reads a body whose announced length was checked already.
    pub(super) async fn read(&self, body: Incoming) -> Result<Bytes, Failure> {
        let patience = Duration::from_millis(self.limits.read_timeout_ms);
        match tokio::time::timeout(patience, body.collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(_broken)) => Err(Failure::new(ErrorCode::InvalidRequest, "the body broke off").closing()),
            Err(_elapsed) => {
                let message = format!(
                    "the body did not arrive within {} ms (limits.read_timeout_ms)",
                    patience.as_millis()
                );
                Err(Failure::new(ErrorCode::RequestTimeout, message).closing())
            }
        }
    }
}
