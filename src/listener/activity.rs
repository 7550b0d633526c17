//! What a connection is doing, as its time-outs see it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{limits::ConnectionLimits, stream::Stream};

/// What the connection's task can see of its own traffic. Written on every request, so nothing but relaxed stores.
#[derive(Debug, Default)]
pub(super) struct Activity {
    /// Requests whose head was read.
    pub(super) requests: AtomicU64,
    /// Requests not yet answered.
    pub(super) active: AtomicU32,
    /// Bytes came in that do not yet make a request.
    pub(super) partial: AtomicBool,
    /// Bytes went out since the last tick: a long answer to a slow reader is progress too.
    wrote: AtomicBool,
}

impl Activity {
    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if matches!(written, Poll::Ready(Ok(1..))) {
            self.wrote.store(true, Relaxed);
        }
        written
    }
}

/// The time-outs of a connection, checked at each tick.
pub(super) struct ConnectionTimeouts {
    seen: u64,
    quiet_ticks: u32,
    idle_ticks: u32,
}

pub(super) enum Verdict {
    Keep,
    /// Close after what is being answered.
    Finish,
    /// Close at once.
    Drop,
}

impl ConnectionTimeouts {
    pub(super) fn new(limits: &ConnectionLimits) -> Self {
        let ticks = limits
            .idle_timeout
            .as_millis()
            .div_ceil(limits.header_timeout.as_millis().max(1));
        Self {
            seen: 0,
            quiet_ticks: 0,
            idle_ticks: u32::try_from(ticks).unwrap_or(u32::MAX).max(1),
        }
    }

    pub(super) fn check(&mut self, activity: &Activity) -> Verdict {
        let requests = activity.requests.load(Relaxed);
        let wrote = activity.wrote.swap(false, Relaxed);
        if requests != self.seen || activity.active.load(Relaxed) > 0 || wrote {
            self.seen = requests;
            self.quiet_ticks = 0;
            return Verdict::Keep;
        }
        self.quiet_ticks = self.quiet_ticks.saturating_add(1);
        // The first quiet tick may have come right after the first byte of a head; the second is a full period.
        if self.quiet_ticks > self.idle_ticks + 1 || (activity.partial.load(Relaxed) && self.quiet_ticks > 1)
        {
            Verdict::Drop
        } else if self.quiet_ticks >= self.idle_ticks {
            Verdict::Finish
        } else {
            Verdict::Keep
        }
    }
}

/// The stream, noting that bytes came in.
pub(super) struct Watched {
    pub(super) stream: Stream,
    pub(super) activity: Arc<Activity>,
}

impl AsyncRead for Watched {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let polled = Pin::new(&mut this.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            this.activity.partial.store(true, Relaxed);
        }
        polled
    }
}

impl AsyncWrite for Watched {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.activity
            .note_write(Pin::new(&mut this.stream).poll_write(context, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(context)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.activity
            .note_write(Pin::new(&mut this.stream).poll_write_vectored(context, slices))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}
