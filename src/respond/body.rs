//! The body of a response: bytes at hand, or a stream that is passed on.

use std::{
    any::Any,
    convert::Infallible,
    fmt,
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};

/// Bytes that the connection gets at a time. It copies what it gets, so a client that does not read a long body would
/// hold a second one of the same length; and it drops a body with the last piece, although nothing of that is sent yet.
const PIECE: usize = 64 << 10;

/// Why a stream broke off.
pub type BodyError = Box<dyn std::error::Error + Send + Sync>;

/// What the data plane sends. An enum and not a boxed trait object: the lookup path must not allocate for it.
pub enum Body {
    /// Complete in memory.
    Full(Full<Bytes>),
    /// Complete in memory and long: sent piece by piece.
    Long(Bytes),
    /// Passed on frame by frame as it arrives.
    Streamed(UnsyncBoxBody<Bytes, BodyError>),
    /// With something that is kept until the body is sent or given up.
    Holding(Box<(Body, Box<dyn Any + Send>)>),
}

/// A response of the data plane.
pub type Response = http::Response<Body>;

impl Body {
    /// A stream that is passed on.
    pub fn streamed<B>(body: B) -> Self
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BodyError>,
    {
        Self::Streamed(UnsyncBoxBody::new(body.map_err(Into::into)))
    }

    /// The same body, which keeps `held` until it is sent or given up.
    pub fn holding(self, held: impl Any + Send) -> Self {
        Self::Holding(Box::new((self, Box::new(held))))
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match self {
            Self::Full(_) => "Full",
            Self::Long(_) => "Long",
            Self::Streamed(_) => "Streamed",
            Self::Holding(holding) => return f.debug_tuple("Holding").field(&holding.0).finish(),
        };
        f.write_str(name)
    }
}

impl From<Bytes> for Body {
    fn from(bytes: Bytes) -> Self {
        if bytes.len() > PIECE {
            Self::Long(bytes)
        } else {
            Self::Full(Full::new(bytes))
        }
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Full(body) => {
                let never = |never: Infallible| match never {};
                Pin::new(body).poll_frame(context).map_err(never)
            }
            Self::Long(bytes) if bytes.is_empty() => Poll::Ready(None),
            Self::Long(bytes) => {
                let piece = bytes.split_to(PIECE.min(bytes.len()));
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Self::Streamed(body) => Pin::new(body).poll_frame(context),
            Self::Holding(holding) => Pin::new(&mut holding.0).poll_frame(context),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Full(body) => body.is_end_stream(),
            Self::Long(bytes) => bytes.is_empty(),
            Self::Streamed(body) => body.is_end_stream(),
            Self::Holding(holding) => holding.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Full(body) => body.size_hint(),
            Self::Long(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Streamed(body) => body.size_hint(),
            Self::Holding(holding) => holding.0.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_long_body_is_given_out_in_pieces_and_keeps_what_it_holds_until_the_last() {
        let bytes = Bytes::from(vec![b'x'; 2 * PIECE + 1]);
        let (held, mut dropped) = tokio::sync::oneshot::channel::<()>();
        let mut body = Body::from(bytes.clone()).holding(held);
        assert_eq!(
            http_body::Body::size_hint(&body).exact(),
            Some(bytes.len() as u64)
        );
        let mut sizes = Vec::new();
        while let Some(frame) = body.frame().await {
            sizes.push(frame.unwrap().into_data().unwrap().len());
            assert!(
                dropped
                    .try_recv()
                    .is_err_and(|error| error == tokio::sync::oneshot::error::TryRecvError::Empty)
            );
        }
        assert_eq!(sizes, [PIECE, PIECE, 1]);
        drop(body);
        assert!(dropped.await.is_err());
    }
}
