//! What a connection is doing, as its time-outs see it.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    sync::Notify,
};

use super::{limits::ConnectionLimits, linger::Linger, stream::Stream};

/// What the connection's task can see of its own traffic. Written on every request, so nothing but relaxed stores.
#[derive(Debug)]
pub(super) struct Activity {
    /// Requests whose head was read.
    pub(super) requests: AtomicU64,
    /// Requests not yet answered, or whose answer is still being made.
    pub(super) active: AtomicU32,
    /// Bytes came in that do not yet make a request.
    pub(super) partial: AtomicBool,
    /// Bytes went out since the last tick: a long answer to a slow reader is progress too.
    wrote: AtomicBool,
    /// The client takes nothing of what is to go out.
    stalled: AtomicBool,
    /// Counts the connections of the listener.
    clock: Arc<AtomicU64>,
    /// The clock at the last request, or at the beginning.
    used: AtomicU64,
    told_to_close: AtomicBool,
    close: Notify,
    /// The last request was answered before all of its body had come.
    leaves_body: AtomicBool,
}

impl Activity {
    pub(super) fn new(clock: Arc<AtomicU64>) -> Self {
        Self {
            requests: AtomicU64::new(0),
            active: AtomicU32::new(0),
            partial: AtomicBool::new(false),
            wrote: AtomicBool::new(false),
            stalled: AtomicBool::new(false),
            used: AtomicU64::new(clock.load(Relaxed)),
            clock,
            told_to_close: AtomicBool::new(false),
            close: Notify::new(),
            leaves_body: AtomicBool::new(false),
        }
    }

    /// A request's head was read.
    pub(super) fn note_request(&self) {
        self.requests.store(self.requests.load(Relaxed) + 1, Relaxed);
        self.partial.store(false, Relaxed);
        self.leaves_body.store(false, Relaxed);
        // After the connection that is counted last, and before the next.
        self.used.store(self.clock.load(Relaxed) + 1, Relaxed);
    }

    /// The answer to the last request does not wait for all of its body.
    pub(super) fn note_body_left(&self) {
        self.leaves_body.store(true, Relaxed);
    }

    /// A listener that closes waits for no client that might still send something.
    pub(super) fn forget_body(&self) {
        self.leaves_body.store(false, Relaxed);
    }

    pub(super) fn note_stall(&self, stalled: bool) {
        self.stalled.store(stalled, Relaxed);
    }

    /// Whether it can make room for another connection.
    pub(super) fn may_be_closed(&self) -> bool {
        self.active.load(Relaxed) == 0 && !self.is_told_to_close()
    }

    /// Orders connections: the lowest has been idle for longest.
    pub(super) fn idleness(&self) -> (bool, u64) {
        (self.stalled.load(Relaxed), self.used.load(Relaxed))
    }

    /// Tells the connection to close.
    pub(super) fn close(&self) {
        self.told_to_close.store(true, Relaxed);
        self.close.notify_one();
    }

    pub(super) fn is_told_to_close(&self) -> bool {
        self.told_to_close.load(Relaxed)
    }

    /// Waits until the connection is told to close.
    pub(super) async fn told_to_close(&self) {
        self.close.notified().await;
    }

    fn note_write(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        match written {
            Poll::Ready(Ok(1..)) => {
                self.wrote.store(true, Relaxed);
                self.note_stall(false);
            }
            Poll::Pending => self.note_stall(true),
            Poll::Ready(_) => {}
        }
        written
    }
}

/// The time-outs of a connection, checked at each tick.
pub(super) struct ConnectionTimeouts {
    seen: u64,
    quiet_ticks: u32,
    stalled_ticks: u32,
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
            stalled_ticks: 0,
            idle_ticks: u32::try_from(ticks).unwrap_or(u32::MAX).max(1),
        }
    }

    pub(super) fn check(&mut self, activity: &Activity) -> Verdict {
        let requests = activity.requests.load(Relaxed);
        let wrote = activity.wrote.swap(false, Relaxed);
        // Whatever it is that the client does not take is held for it, and must not be for as long as it likes.
        if wrote || !activity.stalled.load(Relaxed) {
            self.stalled_ticks = 0;
        } else {
            self.stalled_ticks += 1;
            if self.stalled_ticks > 1 {
                return Verdict::Drop;
            }
        }
        if requests != self.seen || activity.active.load(Relaxed) > 0 || wrote {
            self.seen = requests;
            self.quiet_ticks = 0;
            return Verdict::Keep;
        }
        self.quiet_ticks = self.quiet_ticks.saturating_add(1);
        // A client that has begun a head and does not go on, or has never said anything. The first quiet tick may have
        // come right after the first byte; the second is a full period.
        let is_silent = activity.partial.load(Relaxed) || requests == 0;
        if self.quiet_ticks > self.idle_ticks + 1 || (is_silent && self.quiet_ticks > 1) {
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
    stream: Stream,
    activity: Arc<Activity>,
    linger: Option<Linger>,
}

impl Watched {
    pub(super) fn new(stream: Stream, activity: Arc<Activity>) -> Self {
        Self {
            stream,
            activity,
            linger: None,
        }
    }
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
        let this = self.get_mut();
        if this.linger.is_none() {
            ready!(Pin::new(&mut this.stream).poll_shutdown(context))?;
            if !this.activity.leaves_body.load(Relaxed) {
                return Poll::Ready(Ok(()));
            }
        }
        let linger = this.linger.get_or_insert_with(Linger::new);
        linger.poll(&mut this.stream, context)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_client_that_takes_nothing_of_its_answer_is_given_two_ticks() {
        let limits = crate::listener::LimitsConfig::default().connection();
        let (mut timeouts, activity) = (ConnectionTimeouts::new(&limits), Activity::new(Arc::default()));
        // An answer is being made, which alone is no reason to close.
        activity.active.store(1, Relaxed);
        let mut check = || matches!(timeouts.check(&activity), Verdict::Drop);
        assert!(!check() && !check() && !check());
        for _ in 0..3 {
            let _blocked = activity.note_write(Poll::Pending);
            assert!(!check(), "one tick may have come right after the stall");
            let _progress = activity.note_write(Poll::Ready(Ok(1)));
            let _blocked = activity.note_write(Poll::Pending);
            assert!(!check(), "something went out");
        }
        assert!(!check());
        assert!(check());
    }
}
