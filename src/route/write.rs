//! PUT and DELETE of a policy.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::{headers::WRITE, router::Router};
use crate::{
    failure::{ErrorCode, Failure},
    forward::strip_hop_by_hop,
    heir::Replied,
    policy::ETag,
    respond::{self, JSON, Response},
    snapshot::Key,
    write::{Change, Effect, IDEMPOTENCY_KEY, Precondition, Versions, WriteOutcome, WriteRequest},
};

impl Router {
    /// Makes a write and answers with what HEIR answered, or with what the journal has.
    pub(super) async fn write(&self, key: &Key, request: Request<Incoming>) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let body = self.read(body).await?;
        let change = if parts.method == Method::PUT {
            Change::Put(body)
        } else {
            Change::Delete
        };
        let request = write_request(key.clone(), change, parts.headers);
        Ok(match self.writer.write(request).await? {
            WriteOutcome::Created(made) | WriteOutcome::Replaced(made) | WriteOutcome::Deleted(made) => {
                passed_on(made.reply)
            }
            WriteOutcome::Declined(reply) => passed_on(reply),
            WriteOutcome::Queued { effect, etag } => queued(effect, etag.as_ref()),
        })
    }

    /// Reads a body whose announced length was checked already.
    pub(super) async fn read(&self, body: Incoming) -> Result<Bytes, Failure> {
        let timeout = Duration::from_millis(self.limits.read_timeout_ms);
        match tokio::time::timeout(timeout, body.collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(_broken)) => Err(Failure::new(ErrorCode::InvalidRequest, "the body broke off").closing()),
            Err(_elapsed) => {
                let message = format!(
                    "the body did not arrive within {} ms (limits.read_timeout_ms)",
                    timeout.as_millis()
                );
                Err(Failure::new(ErrorCode::RequestTimeout, message).closing())
            }
        }
    }
}

fn write_request(key: Key, change: Change, mut headers: HeaderMap) -> WriteRequest {
    strip_hop_by_hop(&mut headers);
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    let is = headers.get_all(header::IF_MATCH).iter().map(versions);
    let is_not = headers.get_all(header::IF_NONE_MATCH).iter().map(versions);
    let preconditions = is
        .map(Precondition::Is)
        .chain(is_not.map(Precondition::IsNot))
        .collect();
    let idempotency_key = headers.get(&IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok());
    WriteRequest {
        key,
        change,
        preconditions,
        idempotency_key: idempotency_key.map(str::to_owned),
        forwarded_headers: headers,
    }
}

/// The versions that an `If-Match` or `If-None-Match` lists. A tag that is weak or not valid names none.
fn versions(list: &HeaderValue) -> Versions {
    let items = || list.to_str().unwrap_or_default().split(',').map(str::trim);
    if items().any(|item| item == "*") {
        Versions::Any
    } else {
        Versions::Tagged(items().filter_map(ETag::parse).collect())
    }
}

/// HEIR's answer, as HEIR gave it.
fn passed_on(reply: Replied) -> Response {
    let mut headers = reply.headers;
    strip_hop_by_hop(&mut headers);
    headers.remove(header::CONTENT_LENGTH);
    let mut response = respond::with_body(reply.status, JSON, reply.body);
    *response.headers_mut() = headers;
    response
}

fn queued(effect: Effect, etag: Option<&ETag>) -> Response {
    let body = serde_json::json!({"ok": true, "queued": true});
    let mut response = match effect {
        Effect::Created => respond::json(StatusCode::CREATED, &body),
        Effect::Replaced => respond::json(StatusCode::OK, &body),
        Effect::Deleted => respond::empty(StatusCode::NO_CONTENT),
    };
    let headers = response.headers_mut();
    headers.insert(WRITE, HeaderValue::from_static("queued"));
    if let Some(etag) = etag {
        headers.insert(header::ETAG, etag.header());
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyId, TenantId};

    #[test]
    fn a_write_is_read_from_its_headers_which_heir_receives_too() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("host", "sidecar"),
            ("connection", "x-hop"),
            ("x-hop", "1"),
            ("content-length", "2"),
            ("if-match", "W/\"a\", \"b\" ,nonsense"),
            ("if-match", "*"),
            ("if-none-match", "\"c\""),
            ("idempotency-key", "once"),
            ("traceparent", "00-1-2-01"),
        ] {
            headers.append(name, HeaderValue::from_static(value));
        }
        let key = (TenantId::parse("acme").unwrap(), PolicyId::parse("chat").unwrap());
        let request = write_request(key, Change::Delete, headers);
        let tagged = |tag| Versions::Tagged(vec![ETag::parse(tag).unwrap()]);
        assert_eq!(
            request.preconditions,
            [
                Precondition::Is(tagged("\"b\"")),
                Precondition::Is(Versions::Any),
                Precondition::IsNot(tagged("\"c\"")),
            ]
        );
        assert_eq!(request.idempotency_key.as_deref(), Some("once"));
        let mut left: Vec<&str> = request
            .forwarded_headers
            .keys()
            .map(|name| name.as_str())
            .collect();
        left.sort_unstable();
        assert_eq!(
            left,
            ["idempotency-key", "if-match", "if-none-match", "traceparent"]
        );
        assert_eq!(
            request.forwarded_headers[header::IF_MATCH],
            "W/\"a\", \"b\" ,nonsense"
        );
    }
}
