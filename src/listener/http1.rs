//! HTTP/1.1 with keep-alive on accepted connections, until the client goes, goes quiet, or the listener stops.

use std::{
    future::Future,
    pin::Pin,
    sync::{Arc, atomic::Ordering::Relaxed},
    task::{Context, Poll},
    time::Duration,
};

use http::{HeaderValue, header};
use hyper::{
    body::{Body as _, Incoming},
    server::conn::http1,
    service::Service,
};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, MissedTickBehavior, interval_at};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    accept::accept,
    activity::{Activity, ConnectionTimeouts, Verdict, Watched},
    address::Peer,
    bind::Bound,
    date,
    handler::{Handler, Reply},
    limits::ConnectionLimits,
    metrics::ListenerMetrics,
    rarely::Rarely,
    stop::Stop,
    stream::Stream,
};
use crate::respond::{Body, Response};

/// hyper refuses a read buffer smaller than this.
const SMALLEST_BUFFER: usize = 8 * 1024;

/// How long the listener, when it closes, waits for the first request of a connection: its client may just have connected.
/// Others were told by their last answer to reconnect elsewhere.
const FIRST_REQUEST: Duration = Duration::from_secs(1);

/// Accepts until `stop.closing`. Connections run on `tasks`, so that their owner can wait for the last.
pub async fn serve<H: Handler>(
    bound: Bound,
    handler: Arc<H>,
    limits: ConnectionLimits,
    metrics: ListenerMetrics,
    stop: Stop,
    tasks: TaskTracker,
) {
    let (max_connections, limits) = (limits.max_connections, Arc::new(limits));
    let stopping = stop.clone();
    let serve = move |stream, peer, activity| {
        serve_connection(
            stream,
            peer,
            activity,
            handler.clone(),
            limits.clone(),
            stopping.clone(),
        )
    };
    accept(bound, max_connections, metrics, stop, tasks, serve).await;
}

async fn serve_connection<H: Handler>(
    stream: Stream,
    peer: Peer,
    activity: Arc<Activity>,
    handler: Arc<H>,
    limits: Arc<ConnectionLimits>,
    stop: Stop,
) {
    let service = Requests {
        handler,
        peer,
        activity: activity.clone(),
        draining: stop.draining.clone(),
    };
    let io = TokioIo::new(Watched::new(stream, activity.clone()));
    let connection = http1::Builder::new()
        .max_buf_size(limits.max_header_bytes.max(SMALLEST_BUFFER))
        // Deadlines are kept below by one coarse timer per connection; hyper's would be reset for every request.
        .header_read_timeout(None)
        // One flattened write is cheaper than two slices for answers of this size.
        .writev(false)
        .serve_connection(io, service);
    let mut connection = std::pin::pin!(connection);
    let mut timeouts = ConnectionTimeouts::new(&limits);
    let mut ticks = interval_at(Instant::now() + limits.header_timeout, limits.header_timeout);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let asked = activity.clone();
    let mut closing = std::pin::pin!(async {
        stop.closing.cancelled().await;
        if asked.requests.load(Relaxed) == 0 {
            tokio::time::sleep(FIRST_REQUEST).await;
        }
    });
    let mut makes_room = std::pin::pin!(activity.told_to_close());
    let mut is_closing = false;
    let mut rarely = Rarely::new(|context| {
        if ticks.poll_tick(context).is_ready() {
            return Poll::Ready(Event::Tick);
        }
        if makes_room.as_mut().poll(context).is_ready() {
            return Poll::Ready(Event::MakesRoom);
        }
        if !is_closing && closing.as_mut().poll(context).is_ready() {
            is_closing = true;
            return Poll::Ready(Event::Closes);
        }
        Poll::Pending
    });
    loop {
        tokio::select! {
            biased;
            ended = connection.as_mut() => {
                if let Err(error) = ended {
                    tracing::debug!(%error, ?peer, "A connection ended with an error.");
                }
                return;
            }
            event = rarely.next() => match event {
                Event::Tick => match timeouts.check(&activity) {
                    Verdict::Keep => {}
                    Verdict::Finish => connection.as_mut().graceful_shutdown(),
                    Verdict::Drop => return,
                },
                Event::MakesRoom => return,
                Event::Closes => {
                    activity.forget_body();
                    connection.as_mut().graceful_shutdown();
                }
            },
        }
    }
}

/// What happens to a connection besides its requests.
enum Event {
    /// The time-outs are to be checked.
    Tick,
    /// Another connection needs its place.
    MakesRoom,
    /// The listener closes.
    Closes,
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
        self.activity.note_request();
        let close = self.draining.is_cancelled();
        let has_body = !request.body().is_end_stream();
        match self.handler.handle(request, self.peer) {
            Reply::Ready(response) => {
                if has_body {
                    self.activity.note_body_left();
                }
                Answer::Ready(Some(say_goodbye(response, close)))
            }
            Reply::Later(waiting) => {
                self.activity.active.fetch_add(1, Relaxed);
                let busy = Busy(self.activity.clone());
                Answer::Later {
                    waiting,
                    has_body,
                    busy: Some(busy),
                    draining: self.draining.clone(),
                }
            }
        }
    }
}

/// Tells the client, while the listener drains, to send its next request elsewhere; and the time of day, should hyper not.
fn say_goodbye(mut response: Response, draining: bool) -> Response {
    if draining {
        response
            .headers_mut()
            .insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    date::correct(response)
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
        has_body: bool,
        /// Taken by the answer's body where that is not at hand.
        busy: Option<Busy>,
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
                waiting,
                has_body,
                busy,
                draining,
            } => waiting.as_mut().poll(context).map(|response| {
                // A handler that refuses a body closes the connection.
                if *has_body
                    && response.headers().contains_key(header::CONNECTION)
                    && let Some(busy) = busy
                {
                    busy.0.note_body_left();
                }
                let response = say_goodbye(response, draining.is_cancelled());
                let busy = busy.take();
                Ok(match response.body() {
                    Body::Full(_) => response,
                    _ => response.map(|body| body.holding(busy)),
                })
            }),
        }
    }
}
