//! Request bodies, whole and within a limit.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::error::{CallError, invalid};
use crate::{
    failure::{ErrorCode, Failure},
    intake::Room,
    listener::{discard, drain},
};

/// How fast a body must come at least, once its time is over: 256 KiB a second.
const BYTES_PER_MS: usize = 256;

/// Refuses a body that does not say where it ends.
pub(super) fn check_length(headers: &HeaderMap, must_be_told: bool) -> Result<(), CallError> {
    let mut encodings = headers.get_all(header::TRANSFER_ENCODING).iter();
    let has_length = headers.contains_key(header::CONTENT_LENGTH);
    let is_clear = match (encodings.next(), encodings.next()) {
        (None, _) => has_length || !must_be_told,
        (Some(encoding), None) => !has_length && encoding.as_bytes().eq_ignore_ascii_case(b"chunked"),
        (Some(_), Some(_)) => false,
    };
    if is_clear {
        return Ok(());
    }
    Err(Failure::new(
        ErrorCode::LengthRequired,
        "send the body with Content-Length, or with Transfer-Encoding: chunked alone",
    )
    .closing()
    .into())
}

/// Receives a body of at most `limit` bytes into memory of which there must be enough.
pub(super) async fn receive(
    headers: &HeaderMap,
    mut body: Incoming,
    limit: usize,
    timeout: Duration,
    room: &mut Room,
) -> Result<Bytes, CallError> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
        && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
    {
        discard(headers, body).await;
        let message = "the store takes bodies without Content-Encoding";
        return Err(Failure::new(ErrorCode::UnsupportedMediaType, message)
            .closing()
            .into());
    }
    let announced = headers
        .get(header::CONTENT_LENGTH)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if announced.is_some_and(|length| length > limit as u64) {
        discard(headers, body).await;
        return Err(too_large(limit));
    }
    let begun = Instant::now();
    let mut received = Vec::new();
    loop {
        // More for what has come already, so that a large body over a slow line arrives and one that trickles does not.
        let allowance = Duration::from_millis((received.len() / BYTES_PER_MS) as u64);
        let frame = match timeout_at(begun + timeout + allowance, body.frame()).await {
            Ok(None) => return Ok(received.into()),
            Ok(Some(Ok(frame))) => frame,
            Ok(Some(Err(_))) => {
                return Err(
                    Failure::new(ErrorCode::InvalidRequest, "the body did not arrive in full")
                        .closing()
                        .into(),
                );
            }
            Err(_elapsed) => {
                let message = "the body did not arrive in time";
                return Err(Failure::new(ErrorCode::RequestTimeout, message).closing().into());
            }
        };
        if let Some(data) = frame.data_ref() {
            if received.len() + data.len() > limit {
                drain(body).await;
                return Err(too_large(limit));
            }
            if let Err(full) = make_room(room, received.len() + data.len()) {
                drop(received);
                drain(body).await;
                return Err(full.closing().into());
            }
            received.extend_from_slice(data);
        }
    }
}

/// Makes room for so many bytes in all.
pub(super) fn make_room(room: &mut Room, bytes: usize) -> Result<(), Failure> {
    room.grow(bytes).map_err(|_full| {
        let message = "the store has too many bytes of bodies in memory already (--max-buffered-bytes)";
        Failure::new(ErrorCode::Overloaded, message).retry_after_seconds(1)
    })
}

fn too_large(limit: usize) -> CallError {
    Failure::new(
        ErrorCode::PayloadTooLarge,
        format!("the body is larger than {limit} bytes"),
    )
    .detail("limit_bytes", limit)
    .closing()
    .into()
}

/// The idempotency key of a request, if it has one.
pub(super) fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, CallError> {
    let mut values = headers.get_all("idempotency-key").iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let key = value.to_str().unwrap_or_default();
    let is_valid = (1..=128).contains(&key.len()) && key.bytes().all(|b| b.is_ascii_graphic());
    if !is_valid || values.next().is_some() {
        return Err(invalid(
            "Idempotency-Key must be 1 to 128 visible ASCII characters",
        ));
    }
    Ok(Some(key.to_owned()))
}
