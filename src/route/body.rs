//! Bodies of requests: read whole, within limits of time and of memory, before anything else is done for the request.

use std::{io, time::Duration};

use bytes::{Bytes, BytesMut};
use http_body::Body as _;
use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::router::Router;
use crate::{
    failure::{ErrorCode, Failure},
    intake::{Client, Room},
    listener::drain,
};

/// A body that is there, and its memory, which is to be kept for as long as the bytes are.
#[derive(Debug)]
pub(super) struct Received {
    pub(super) bytes: Bytes,
    pub(super) room: Room,
}

impl Router {
    /// Reads a body. One whose length was announced has been checked already; one that comes in chunks is counted here.
    pub(super) async fn read(&self, mut body: Incoming, client: Client) -> Result<Received, Failure> {
        let mut room = self.buffered.room(client);
        let timeout = Duration::from_millis(self.limits.read_timeout_ms);
        let read = tokio::time::timeout(timeout, self.collect(&mut body, &mut room)).await;
        let failure = match read {
            Ok(Ok(bytes)) => return Ok(Received { bytes, room }),
            Ok(Err(failure)) => failure,
            Err(_elapsed) => {
                let message = format!(
                    "the body did not arrive within {} ms (limits.read_timeout_ms)",
                    timeout.as_millis()
                );
                return Err(Failure::new(ErrorCode::RequestTimeout, message).closing());
            }
        };
        drop(room);
        if matches!(failure.code, ErrorCode::PayloadTooLarge | ErrorCode::Overloaded) {
            drain(body).await;
        }
        Err(failure.closing())
    }

    async fn collect(&self, body: &mut Incoming, room: &mut Room) -> Result<Bytes, Failure> {
        let max_bytes = self.limits.max_body_bytes;
        let announced = body
            .size_hint()
            .exact()
            .and_then(|bytes| usize::try_from(bytes).ok());
        let expected = announced.unwrap_or_default().min(max_bytes);
        // Most bodies come in one piece, which is then the body.
        let (mut first, mut all) = (Bytes::new(), BytesMut::new());
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| broken(&error))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = first.len() + all.len() + data.len();
            if length > max_bytes {
                let message = format!("the body has more than {max_bytes} bytes (limits.max_body_bytes)");
                return Err(Failure::new(ErrorCode::PayloadTooLarge, message));
            }
            room.grow(length)?;
            if first.is_empty() && all.is_empty() {
                first = data;
            } else {
                // All at once, since what grows step by step ends with up to as much again that nothing is in. Memory that
                // was not written to yet costs nothing.
                all.reserve(expected.saturating_sub(all.len()));
                all.extend_from_slice(&std::mem::take(&mut first));
                all.extend_from_slice(&data);
            }
        }
        Ok(if all.is_empty() { first } else { all.freeze() })
    }
}

/// A body that the client did not send to its end, or that is not framed as HTTP has it.
fn broken(error: &hyper::Error) -> Failure {
    let causes = std::iter::successors(std::error::Error::source(error), |error| error.source());
    let mut kinds = causes.filter_map(|cause| cause.downcast_ref::<io::Error>().map(io::Error::kind));
    if kinds.any(|kind| matches!(kind, io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData)) {
        Failure::new(
            ErrorCode::InvalidRequest,
            "the body is not framed as it should be",
        )
    } else {
        Failure::new(ErrorCode::ClientClosedRequest, "the body broke off")
    }
}
