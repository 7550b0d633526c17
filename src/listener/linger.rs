//! Closing a connection on which a client still sends a body that was refused. If it were closed at once, the system would
//! answer what still comes with a reset, and a client that writes before it reads would see that instead of its answer.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Sleep, sleep},
};

use super::stream::Stream;

/// How much is read of what nothing is done with, and for how long.
const BYTES: usize = 64 << 20;
const PATIENCE: Duration = Duration::from_secs(5);

/// The rest of a connection whose answer was sent: it is read until the client has closed its side as well.
pub(super) struct Linger {
    left: usize,
    end: Pin<Box<Sleep>>,
}

impl Linger {
    pub(super) fn new() -> Self {
        Self {
            left: BYTES,
            end: Box::pin(sleep(PATIENCE)),
        }
    }

    /// Ready once the client has closed its side, or has had enough.
    pub(super) fn poll(&mut self, stream: &mut Stream, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut unused = [0; 8 << 10];
        while self.left > 0 && self.end.as_mut().poll(context).is_pending() {
            let mut unused = ReadBuf::new(&mut unused);
            // One that has reset the connection does not wait for an answer.
            let read = ready!(Pin::new(&mut *stream).poll_read(context, &mut unused));
            if read.is_err() || unused.filled().is_empty() {
                break;
            }
            self.left = self.left.saturating_sub(unused.filled().len());
        }
        Poll::Ready(Ok(()))
    }
}
