//! The body of a response: bytes at hand, or a stream that is passed on.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::Full;
use hyper::body::Incoming;

/// What the data plane sends. An enum and not a boxed trait object: the lookup path must not allocate for it.
#[derive(Debug)]
pub enum Body {
    /// Complete in memory.
    Full(Full<Bytes>),
    /// Passed on frame by frame as it arrives.
    Streamed(Incoming),
}

/// A response of the data plane.
pub type Response = http::Response<Body>;

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        Self::Full(Full::new(bytes))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Full(body) => Pin::new(body).poll_frame(context).map_err(|never| match never {}),
            Self::Streamed(body) => Pin::new(body).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}
