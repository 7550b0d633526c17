//! The accept loop, the same for every protocol: hands each connection to a task of its own.
//!
//! A full file table or a client that vanished must not end a listener, and no client may hold more than its
//! share: connections are counted, the protocol closes one that stops talking, and where there are as many as there may
//! be, the one that has been idle for longest makes room for the next client.

use std::{
    future::Future,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::task::TaskTracker;

use super::{
    activity::Activity, address::Peer, bind::Bound, metrics::ListenerMetrics, open::OpenConnections,
    stop::Stop, stream::Stream,
};

/// Pause after a failed accept: a full file table fails at once and again, and without a pause this would spin. Also the
/// time in which a connection that is to make room does so, or another one becomes idle.
const PAUSE: Duration = Duration::from_millis(50);

/// Time between two lines about failed accepts.
const SAID: Duration = Duration::from_secs(1);

/// Accepts until `stop.closing`, at most `max_connections` at a time. `serve` speaks the protocol on one connection; it
/// runs on `tasks`, so that their owner can wait for the last.
pub(super) async fn accept<F>(
    bound: Bound,
    max_connections: usize,
    metrics: ListenerMetrics,
    stop: Stop,
    tasks: TaskTracker,
    serve: impl Fn(Stream, Peer, Arc<Activity>) -> F,
) where
    F: Future<Output = ()> + Send + 'static,
{
    let permits = Arc::new(Semaphore::new(max_connections));
    let open = OpenConnections::default();
    let mut waiting = None;
    let (mut said, mut failures) = (None, 0_u32);
    loop {
        let accepting = async {
            if waiting.is_none() {
                waiting = Some(bound.accept().await?);
            }
            Ok::<_, std::io::Error>(room(&permits, &open).await)
        };
        let accepted = tokio::select! {
            biased;
            () = stop.closing.cancelled() => break,
            accepted = accepting => accepted,
        };
        match (accepted, waiting.take()) {
            (Ok(permit), Some((stream, peer))) => {
                metrics.connections.inc();
                let gauge = metrics.connections.clone();
                let entry = open.enter();
                let connection = serve(stream, peer, entry.activity().clone());
                tasks.spawn(async move {
                    connection.await;
                    gauge.dec();
                    // In this order: a client that is let in by the permit finds the entry gone.
                    drop(entry);
                    drop(permit);
                });
            }
            (Ok(_), None) => {}
            (Err(error), _) => {
                metrics.accept_errors.inc();
                failures += 1;
                if said.is_none_or(|said: Instant| said.elapsed() >= SAID) {
                    tracing::warn!(%error, address = %bound, failures, "Could not accept a connection.");
                    (said, failures) = (Some(Instant::now()), 0);
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
    bound.leave_new_ones();
    // Clients that the kernel already accepted for us would be reset by the close; serve them as well.
    while let Some((stream, peer)) = waiting.take().or_else(|| bound.accept_pending().ok().flatten()) {
        let entry = open.enter();
        let connection = serve(stream, peer, entry.activity().clone());
        tasks.spawn(async move {
            connection.await;
            drop(entry);
        });
    }
    bound.remove();
}

/// Waits for room for one more connection, and makes some where a connection is idle.
async fn room(permits: &Arc<Semaphore>, open: &OpenConnections) -> Option<OwnedSemaphorePermit> {
    loop {
        if let Ok(permit) = permits.clone().try_acquire_owned() {
            return Some(permit);
        }
        open.close_idlest();
        // The semaphore is never closed; were it, connections would go uncounted and nothing else.
        if let Ok(permit) = tokio::time::timeout(PAUSE, permits.clone().acquire_owned()).await {
            return permit.ok();
        }
    }
}
