//! One connection: HTTP/1.1 with keep-alive, until the client goes, goes quiet, or the listener stops.

use std::{
    future::Future,
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, header};
use hyper::{body::Incoming, server::conn::http1, service::Service};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, MissedTickBehavior, interval_at},
};
use tokio_util::sync::CancellationToken;

use super::{ConnectionLimits, Handler, Peer, Reply, Stop, address::Stream};
use crate::respond::Response;

/// hyper refuses a read buffer smaller than this.
const SMALLEST_BUFFER: usize = 8 * 1024;

/// How long a connection that has not asked anything yet is waited for when the listener closes: its client may have
/// been connected, and be sending, a moment before. Others were told by their last answer to go elsewhere.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

pub(super) async fn serve<H: Handler>(
    stream: Stream,
    peer: Peer,
    handler: Arc<H>,
    limits: Arc<ConnectionLimits>,
    stop: Stop,
) {
    let activity = Arc::new(Activity::default());
    let service = Requests {
        handler,
        peer,
        activity: activity.clone(),
        draining: stop.draining.clone(),
    };
    let io = TokioIo::new(Watched {
        stream,
        activity: activity.clone(),
    });
    let connection = http1::Builder::new()
        .max_buf_size(limits.max_header_bytes.max(SMALLEST_BUFFER))
        // Deadlines are kept below by one coarse timer per connection; hyper's would be reset for every request.
        .header_read_timeout(None)
        // One flattened write is cheaper than two slices for answers of this size.
        .writev(false)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut patience = Patience::new(&limits);
    let mut ticks = interval_at(Instant::now() + limits.header_timeout, limits.header_timeout);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let asked = activity.clone();
    let mut closing = std::pin::pin!(async {
        stop.closing.cancelled().await;
        if asked.requests.load(Relaxed) == 0 {
            tokio::time::sleep(FIRST_REQUEST).await;
        }
    });
    let mut is_closing = false;
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, ?peer, "A connection ended with an error.");
                }
                return;
            }
            _ = ticks.tick() => match patience.judge(&activity) {
                Verdict::Keep => {}
                Verdict::Finish => connection.as_mut().graceful_shutdown(),
                Verdict::Drop => return,
            },
            () = closing.as_mut(), if !is_closing => {
                is_closing = true;
                connection.as_mut().graceful_shutdown();
            }
        }
    }
}

/// What the connection's task can see of its own traffic. Written on every request, so nothing but relaxed stores.
#[derive(Debug, Default)]
struct Activity {
    /// Requests whose head was read.
    requests: AtomicU64,
    /// Requests not yet answered.
    active: AtomicU32,
    /// Bytes came in that do not yet make a request.
    partial: AtomicBool,
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

/// Decides at each tick whether a connection is still worth keeping.
struct Patience {
    seen: u64,
    quiet_ticks: u32,
    idle_ticks: u32,
}

enum Verdict {
    Keep,
    /// Close after what is being answered.
    Finish,
    /// Close at once.
    Drop,
}

impl Patience {
    fn new(limits: &ConnectionLimits) -> Self {
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

    fn judge(&mut self, activity: &Activity) -> Verdict {
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

/// The handler as hyper wants it.
struct Requests<H> {
    handler: Arc<H>,
    peer: Peer,
    activity: Arc<Activity>,
    draining: CancellationToken,
}

impl<H: Handler> Service<http::Request<Incoming>> for Requests<H> {
    type Response = Response;
    type Error = std::convert::Infallible;
    type Future = Answer;

    fn call(&self, request: http::Request<Incoming>) -> Answer {
        self.activity
            .requests
            .store(self.activity.requests.load(Relaxed) + 1, Relaxed);
        self.activity.partial.store(false, Relaxed);
        let close = self.draining.is_cancelled();
        match self.handler.handle(request, self.peer) {
            Reply::Ready(response) => Answer::Ready(Some(say_goodbye(response, close))),
            Reply::Later(waiting) => {
                self.activity.active.fetch_add(1, Relaxed);
                let busy = Busy(self.activity.clone());
                Answer::Later {
                    waiting,
                    _busy: busy,
                    draining: self.draining.clone(),
                }
            }
        }
    }
}

/// Tells the client, while the listener drains, to send its next request elsewhere.
fn say_goodbye(mut response: Response, draining: bool) -> Response {
    if draining {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    response
}

/// A request that is being answered; stops counting however its answer ends.
struct Busy(Arc<Activity>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Relaxed);
        // The body was read with the request: what is left in the buffer, if anything, is the next head.
        self.0.partial.store(false, Relaxed);
    }
}

enum Answer {
    /// Taken out when polled.
    Ready(Option<Response>),
    Later {
        waiting: Pin<Box<dyn Future<Output = Response> + Send>>,
        _busy: Busy,
        draining: CancellationToken,
    },
}

impl Future for Answer {
    type Output = Result<Response, std::convert::Infallible>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        match self.get_mut() {
            Self::Ready(response) => response
                .take()
                .map_or(Poll::Pending, |response| Poll::Ready(Ok(response))),
            Self::Later {
                waiting, draining, ..
            } => waiting
                .as_mut()
                .poll(context)
                .map(|response| Ok(say_goodbye(response, draining.is_cancelled()))),
        }
    }
}

/// The stream, noting that bytes came in.
struct Watched {
    stream: Stream,
    activity: Arc<Activity>,
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
