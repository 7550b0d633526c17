//! The body of HEIR's answer on its way to a client.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body::{Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep};

use crate::{
    heir::{HeirBody, HeirError},
    respond::BodyError,
};

/// A body that breaks off where HEIR pauses for too long in the middle of it. Without this, an answer that HEIR does not
/// finish would keep its connection for as long as the client likes.
#[derive(Debug)]
pub(super) struct Unstalled {
    body: HeirBody,
    limit: Duration,
    pause: Pin<Box<Sleep>>,
}

impl Unstalled {
    pub(super) fn new(body: HeirBody, limit: Duration) -> Self {
        Self {
            body,
            limit,
            pause: Box::pin(sleep(limit)),
        }
    }
}

impl http_body::Body for Unstalled {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let this = self.get_mut();
        // The body first: while the client does not read, this is not polled, and what has come meanwhile is there at once.
        if let Poll::Ready(frame) = Pin::new(&mut this.body).poll_frame(context) {
            this.pause.as_mut().reset(Instant::now() + this.limit);
            return Poll::Ready(frame.map(|frame| frame.map_err(Into::into)));
        }
        let elapsed = this.pause.as_mut().poll(context);
        elapsed.map(|()| Some(Err(HeirError::Timeout { after: this.limit }.into())))
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
