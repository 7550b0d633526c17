//! Listening sockets: bind early, accept for ever, hand each connection to a task of its own.
//!
//! A full file table or a client that vanished must not end a listener, and no client may hold more than its
//! share: connections are counted, and one that stops talking is closed.

mod address;
mod connection;
mod discard;
mod limits;
mod metrics;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

pub use address::{Address, Bound, InvalidAddress, Peer};
pub use discard::discard;
pub use limits::LimitsConfig;
pub use metrics::{ListenerMetrics, ListenersMetrics};

use hyper::body::Incoming;
use tokio::sync::Semaphore;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::respond::Response;

/// Answers requests. A lookup answers at once; whatever must wait returns a future.
pub trait Handler: Send + Sync + 'static {
    fn handle(self: &Arc<Self>, request: http::Request<Incoming>, peer: Peer) -> Reply;
}

/// An answer, or the wait for one.
pub enum Reply {
    Ready(Response),
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl std::fmt::Debug for Reply {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Later(_) => "Later",
        })
    }
}

/// What one listener grants its clients.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Open connections; further clients wait in the kernel's backlog.
    pub max_connections: usize,
    /// Bytes of one request's head; a longer one is answered 431.
    pub max_header_bytes: usize,
    /// A request head that takes longer than this (up to twice this) to arrive ends the connection.
    pub header_timeout: Duration,
    /// A connection without requests is closed after this.
    pub idle_timeout: Duration,
}

/// How a listener ends, in two steps: `draining` tells clients to go elsewhere (every answer carries
/// `Connection: close`) while everything is still served; `closing` stops accepting and ends connections after
/// the answer they are busy with.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    pub draining: CancellationToken,
    pub closing: CancellationToken,
}

/// Accepts until `stop.closing`. Connections run on `tasks`, so that whoever owns those can wait for the last.
pub async fn serve<H: Handler>(
    bound: Bound,
    handler: Arc<H>,
    limits: ConnectionLimits,
    metrics: ListenerMetrics,
    stop: Stop,
    tasks: TaskTracker,
) {
    let permits = Arc::new(Semaphore::new(limits.max_connections));
    let limits = Arc::new(limits);
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.closing.cancelled() => break,
            accepted = accept(&bound, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                metrics.connections.inc();
                let open = metrics.connections.clone();
                let connection =
                    connection::serve(stream, peer, handler.clone(), limits.clone(), stop.clone());
                tasks.spawn(async move {
                    connection.await;
                    open.dec();
                    drop(permit);
                });
            }
            Err(error) => {
                metrics.accept_errors.inc();
                tracing::warn!(%error, address = %bound, "Could not accept a connection.");
                // A full file table fails at once and again: without a pause this would spin.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    // Clients that the kernel already accepted for us would be reset by the close; serve them as well.
    while let Ok(Some((stream, peer))) = bound.accept_pending() {
        let connection = connection::serve(stream, peer, handler.clone(), limits.clone(), stop.clone());
        tasks.spawn(connection);
    }
    bound.remove();
}

async fn accept(
    bound: &Bound,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(address::Stream, Peer, Option<tokio::sync::OwnedSemaphorePermit>)> {
    // The semaphore is never closed; were it, connections would go uncounted and nothing else.
    let permit = permits.clone().acquire_owned().await.ok();
    let (stream, peer) = bound.accept().await?;
    Ok((stream, peer, permit))
}
