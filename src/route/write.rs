//! PUT and DELETE of a policy.

use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use hyper::body::Incoming;

use super::{body::Received, headers::WRITE, router::Router};
use crate::{
    failure::{ErrorCode, Failure},
    forward::{strip_hop_by_hop, strip_hop_by_hop_of_request},
    heir::Replied,
    intake::Client,
    policy::ETag,
    respond::{self, JSON, Response},
    snapshot::Key,
    write::{Change, Effect, IDEMPOTENCY_KEY, Precondition, Versions, WriteOutcome, WriteRequest},
};

impl Router {
    /// Makes a write and answers with what HEIR answered, or with what the journal has.
    pub(super) async fn write(
        self: &Arc<Self>,
        key: Key,
        request: Request<Incoming>,
        client: Client,
    ) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let Received { bytes, room } = self.read(body, client).await?;
        let change = if parts.method == Method::PUT {
            Change::Put(bytes)
        } else {
            Change::Delete
        };
        let place = self.waiting.place(&key.0)?;
        let (request, this) = (write_request(key, change, parts.headers)?, self.clone());
        self.elsewhere(async move {
            let outcome = this.writer.write(request).await?;
            drop(room);
            let response = match outcome {
                WriteOutcome::Created(made) | WriteOutcome::Replaced(made) | WriteOutcome::Deleted(made) => {
                    passed_on(made.reply)
                }
                WriteOutcome::Declined(reply) => passed_on(reply),
                WriteOutcome::Queued { effect, etag } => queued(effect, etag.as_ref()),
            };
            Ok(response.map(|body| body.holding(place)))
        })
        .await
    }
}

fn write_request(key: Key, change: Change, mut headers: HeaderMap) -> Result<WriteRequest, Failure> {
    strip_hop_by_hop_of_request(&mut headers)?;
    for name in [header::HOST, header::CONTENT_LENGTH, header::EXPECT] {
        headers.remove(name);
    }
    let is = headers.get_all(header::IF_MATCH).iter().map(versions);
    let is_not = headers.get_all(header::IF_NONE_MATCH).iter().map(versions);
    let preconditions = is
        .map(|versions| versions.map(Precondition::Is))
        .chain(is_not.map(|versions| versions.map(Precondition::IsNot)))
        .collect::<Result<_, Failure>>()?;
    let idempotency_key = headers.get(&IDEMPOTENCY_KEY).and_then(|key| key.to_str().ok());
    Ok(WriteRequest {
        key,
        change,
        preconditions,
        idempotency_key: idempotency_key.map(str::to_owned),
        forwarded_headers: headers,
    })
}

/// The versions that an `If-Match` or `If-None-Match` lists. A tag that is weak or not valid names none. `*` stands alone:
/// beside tags it could be read as any version, or as none.
fn versions(list: &HeaderValue) -> Result<Versions, Failure> {
    let list = list.to_str().unwrap_or_default();
    if list.trim() == "*" {
        return Ok(Versions::Any);
    }
    if ETag::items(list).any(|item| item == "*") {
        let message = "`*` in If-Match or If-None-Match stands alone, or not at all";
        return Err(Failure::new(ErrorCode::InvalidRequest, message));
    }
    Ok(Versions::Tagged(
        ETag::items(list).filter_map(ETag::parse).collect(),
    ))
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
        let request = write_request(key.clone(), Change::Delete, headers).unwrap();
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

    #[test]
    fn a_star_is_any_version_only_where_it_stands_alone() {
        let key = (TenantId::parse("acme").unwrap(), PolicyId::parse("chat").unwrap());
        let read = |name: http::HeaderName, list: &'static str| {
            let headers = HeaderMap::from_iter([(name, HeaderValue::from_static(list))]);
            write_request(key.clone(), Change::Delete, headers).map(|request| request.preconditions)
        };
        let tag = |tag| ETag::parse(tag).unwrap();
        for (list, expected) in [
            (" * ", Some(Versions::Any)),
            ("\"a,*,b\"", Some(Versions::Tagged(vec![tag("\"a,*,b\"")]))),
            (
                "\"a,\", \"b\"",
                Some(Versions::Tagged(vec![tag("\"a,\""), tag("\"b\"")])),
            ),
            ("\"a\", *", None),
            ("*, \"a\"", None),
            ("*, *", None),
        ] {
            let is = read(header::IF_MATCH, list).ok();
            assert_eq!(is, expected.clone().map(|v| vec![Precondition::Is(v)]), "{list}");
            let is_not = read(header::IF_NONE_MATCH, list).ok();
            assert_eq!(is_not, expected.map(|v| vec![Precondition::IsNot(v)]), "{list}");
        }
    }

    #[test]
    fn a_precondition_is_not_stripped_because_connection_lists_it() {
        let key = (TenantId::parse("acme").unwrap(), PolicyId::parse("chat").unwrap());
        let mut headers = HeaderMap::new();
        headers.insert(header::CONNECTION, HeaderValue::from_static("if-match"));
        headers.insert(header::IF_MATCH, HeaderValue::from_static("\"a\""));
        let refused = write_request(key, Change::Delete, headers).unwrap_err();
        assert_eq!(refused.code, ErrorCode::InvalidRequest);
    }
}
