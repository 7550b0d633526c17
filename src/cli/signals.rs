//! The signals that control the process, on a thread of their own: a disk or a resolver that blocks the other threads
//! must not keep a signal from ending it.

use std::{
    io,
    process::exit,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use crate::{app::Shutdown, telemetry::Logs};

/// The exit status of a process that a signal ended before it served.
const ENDED_BY_SIGNAL: i32 = 128;

/// Time for the process to end by itself after a second signal, or after the time that stopping may take.
const GRACE: Duration = Duration::from_millis(500);

/// What the signals of the process do. SIGHUP asks for a reload. Before [`serving`](Self::serving), SIGTERM and SIGINT end
/// the process; from then on the first is graceful and the second immediate.
#[derive(Debug)]
pub(super) struct Signals {
    shutdown: Shutdown,
    /// How long a graceful stop may take.
    limit: Arc<OnceLock<Duration>>,
}

struct Caught {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    /// Receives them from now on. Returns the reloads that are asked for, too.
    ///
    /// # Errors
    /// When there is no thread for it, or the signals cannot be received.
    pub(super) fn receive(logs: Logs) -> io::Result<(Self, mpsc::Receiver<()>)> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let entered = runtime.enter();
        let caught = Caught {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        };
        // A file that reaches the limit of the process (`ulimit -f`) would end the process as well. With a handler, which
        // stays although nothing is received here, writing fails as on a full disk.
        drop(signal(SignalKind::from_raw(
            rustix::process::Signal::XFSZ.as_raw(),
        ))?);
        drop(entered);
        let (reload, reloads) = mpsc::channel(1);
        let (shutdown, limit) = (Shutdown::default(), Arc::new(OnceLock::new()));
        let (stop, limit_of_thread) = (shutdown.clone(), limit.clone());
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(caught.obey(&stop, &reload, &limit_of_thread, &logs));
        })?;
        Ok((Self { shutdown, limit }, reloads))
    }

    /// The process serves now: it is stopped through the result, and ended if that takes longer than `limit`.
    pub(super) fn serving(&self, limit: Duration) -> Shutdown {
        let _once = self.limit.set(limit);
        self.shutdown.clone()
    }
}

impl Caught {
    #[expect(
        clippy::disallowed_methods,
        reason = "the thread that would return from main may be the one that is blocked"
    )]
    async fn obey(
        mut self,
        shutdown: &Shutdown,
        reload: &mpsc::Sender<()>,
        limit: &OnceLock<Duration>,
        logs: &Logs,
    ) {
        let mut end = std::pin::pin!(tokio::time::sleep(Duration::MAX));
        loop {
            let stop = tokio::select! {
                _ = self.terminate.recv() => SignalKind::terminate(),
                _ = self.interrupt.recv() => SignalKind::interrupt(),
                _ = self.hangup.recv() => {
                    // Full: a reload is pending already.
                    let _pending = reload.try_send(());
                    continue;
                }
                () = end.as_mut() => {
                    tracing::error!("Something kept the process from stopping in time; it is ended.");
                    logs.finish();
                    exit(1)
                }
            };
            let Some(limit) = limit.get() else {
                exit(ENDED_BY_SIGNAL + stop.as_raw_value())
            };
            let left = if shutdown.gracefully.is_cancelled() {
                shutdown.at_once.cancel();
                GRACE
            } else {
                shutdown.gracefully.cancel();
                *limit + GRACE
            };
            end.as_mut().reset(tokio::time::Instant::now() + left);
        }
    }
}
