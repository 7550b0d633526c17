//! The body of HEIR's answer, with the permits of its request.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use tokio::sync::OwnedSemaphorePermit;

/// What a request needs. It is given back when the answer is read or dropped: until then a connection is in use.
#[derive(Debug)]
pub(super) struct Permits {
    pub(super) _any: OwnedSemaphorePermit,
    pub(super) _forward: Option<OwnedSemaphorePermit>,
}

/// The body of an answer as it arrives. While it is kept, its request counts towards `heir.pool.max_requests`.
#[derive(Debug)]
pub struct HeirBody {
    incoming: Incoming,
    _permits: Permits,
}

impl HeirBody {
    pub(super) fn new(incoming: Incoming, permits: Permits) -> Self {
        Self {
            incoming,
            _permits: permits,
        }
    }
}

impl Body for HeirBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.get_mut().incoming).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}
