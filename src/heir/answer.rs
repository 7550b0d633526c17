//! What HEIR answered, and what that says.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;

use super::{body::HeirBody, error::HeirError};
use crate::policy::ETag;

/// The longest pause that HEIR can ask for.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// The answer to a conditional read.
#[derive(Debug)]
pub enum Fetched {
    /// HEIR's version is the one that was named.
    NotModified,
    /// HEIR's version is another one.
    Changed {
        /// The document, list or whatever else was asked for.
        body: Bytes,
        /// All headers of the answer.
        headers: HeaderMap,
    },
}

impl Fetched {
    /// The answer's strong entity tag.
    pub fn etag(headers: &HeaderMap) -> Option<ETag> {
        ETag::parse(headers.get(header::ETAG)?.to_str().ok()?)
    }
}

/// The answer to a write, whatever its status.
#[derive(Debug)]
pub struct Replied {
    /// Neither a redirect nor one that says HEIR cannot.
    pub status: StatusCode,
    /// As HEIR sent them, those that concern the connection included.
    pub headers: HeaderMap,
    /// Empty where it broke off.
    pub body: Bytes,
}

/// HEIR answered, but only to say that it cannot.
pub(super) fn is_refusal(status: StatusCode) -> bool {
    (status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED)
        || status == StatusCode::TOO_MANY_REQUESTS
}

/// The token, the certificate, or a proxy's permission is not valid there.
pub(super) fn is_unauthorized(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::PROXY_AUTHENTICATION_REQUIRED
    )
}

/// The class of an answer, for the `outcome` label of the metric.
pub(super) fn outcome_of(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_MODIFIED => "ok",
        StatusCode::NOT_FOUND => "not_found",
        StatusCode::GONE => "gone",
        status if is_unauthorized(status) => "unauthorized",
        status if status.is_server_error() => "server_error",
        status if status.is_client_error() => "client_error",
        status if status.is_redirection() => "redirect",
        _ => "ok",
    }
}

/// The whole body, of at most so many bytes.
pub(super) async fn collect(mut body: HeirBody, limit: u64) -> Result<Bytes, HeirError> {
    let mut collected = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| HeirError::Interrupted(error.into()))?;
        let Ok(data) = frame.into_data() else { continue };
        if (collected.len() + data.len()) as u64 > limit {
            return Err(HeirError::TooLarge { limit });
        }
        collected.extend_from_slice(&data);
    }
    Ok(collected.freeze())
}

/// HEIR has no page to show: an ingress or a proxy answers for it.
pub(super) fn is_page(status: StatusCode, headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    status.is_success()
        && kind.is_some_and(|kind| kind.len() >= 9 && kind[..9].eq_ignore_ascii_case(b"text/html"))
}

/// HEIR is never asked for a compressed answer.
pub(super) fn refuse_encoding(headers: &HeaderMap) -> Result<(), HeirError> {
    match headers.get(header::CONTENT_ENCODING) {
        Some(encoding) if !encoding.as_bytes().eq_ignore_ascii_case(b"identity") => Err(HeirError::Encoded(
            String::from_utf8_lossy(encoding.as_bytes()).into_owned(),
        )),
        _ => Ok(()),
    }
}

/// `Retry-After` in seconds, at most [`LONGEST_PAUSE`]; a date, a negative number or nonsense counts as absent.
pub(super) fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers
        .get(header::RETRY_AFTER)?
        .to_str()
        .ok()?
        .trim()
        .parse()
        .ok()?;
    Some(Duration::from_secs(seconds).min(LONGEST_PAUSE))
}
