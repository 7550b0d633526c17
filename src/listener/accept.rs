//! The accept loop, the same for every protocol: hands each connection to a task of its own.
//!
//! A full file table or a client that vanished must not end a listener, and no client may hold more than its
//! share: connections are counted, and the protocol closes one that stops talking.

use std::{future::Future, sync::Arc, time::Duration};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::{address::Peer, bind::Bound, metrics::ListenerMetrics, stop::Stop, stream::Stream};

/// Pause after a failed accept: a full file table fails at once and again, and without a pause this would spin.
const PAUSE: Duration = Duration::from_millis(50);

/// Accepts until `stop.closing`, at most `max_connections` at a time. `serve` speaks the protocol on one connection; it
/// runs on `tasks`, so that their owner can wait for the last.
pub(super) async fn accept<F>(
    bound: Bound,
    max_connections: usize,
    metrics: ListenerMetrics,
    stop: Stop,
    tasks: TaskTracker,
    serve: impl Fn(Stream, Peer) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(max_connections));
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.closing.cancelled() => break,
            accepted = next(&bound, &permits) => accepted,
        };
        match accepted {
            Ok((stream, peer, permit)) => {
                metrics.connections.inc();
                let open = metrics.connections.clone();
                let connection = serve(stream, peer);
                tasks.spawn(async move {
                    connection.await;
                    open.dec();
                    drop(permit);
                });
            }
            Err(error) => {
                metrics.accept_errors.inc();
                tracing::warn!(%error, address = %bound, "Could not accept a connection.");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    // Clients that the kernel already accepted for us would be reset by the close; serve them as well.
    while let Ok(Some((stream, peer))) = bound.accept_pending() {
        tasks.spawn(serve(stream, peer));
    }
    bound.remove();
}

async fn next(
    bound: &Bound,
    permits: &Arc<Semaphore>,
) -> std::io::Result<(Stream, Peer, Option<OwnedSemaphorePermit>)> {
    // The semaphore is never closed; were it, connections would go uncounted and nothing else.
    let permit = permits.clone().acquire_owned().await.ok();
    let (stream, peer) = bound.accept().await?;
    Ok((stream, peer, permit))
}
