//! The signals that control the process. Its first thread receives them and does nothing else: the kernel gives a signal of the
//! process to that thread before all others, and where a disk or a resolver blocks it, to no other one either. What may
//! block is done on a second thread.

use std::{
    io,
    process::ExitCode,
    sync::{Arc, OnceLock},
    thread,
    time::Duration,
};

use tokio::{
    runtime::Builder,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, oneshot},
    time::Instant,
};

use super::output::print_err;
use crate::{app::Shutdown, telemetry::Logs};

/// Added to the number of a signal that ended a process before it served, as shells do.
const ENDED_BY_SIGNAL: i32 = 128;

/// As of a program whose first thread panics.
const PANICKED: u8 = 101;

/// Time for the process to end by itself after a second signal, or after the time that stopping may take.
const GRACE: Duration = Duration::from_millis(500);

/// The stack of the thread that does the work: as large as that of a first thread. What is not used takes no memory.
const STACK_BYTES: usize = 8 << 20;

/// What the signals of the process do. SIGHUP asks for a reload. Before [`serving`](Self::serving), SIGTERM and SIGINT end
/// the process; from then on the first is graceful and the second immediate.
#[derive(Debug, Clone, Default)]
pub(super) struct Signals {
    shutdown: Shutdown,
    serving: Arc<OnceLock<Serving>>,
}

#[derive(Debug)]
struct Serving {
    /// How long a graceful stop may take.
    limit: Duration,
    logs: Logs,
}

struct Caught {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

/// Does the work of the process, which also gets the reloads that are asked for, and obeys signals meanwhile. Returns how the
/// process is to end: it has to, even if the work has not.
pub(super) fn obeyed_during(
    work: impl FnOnce(Signals, mpsc::Receiver<()>) -> ExitCode + Send + 'static,
) -> ExitCode {
    obey_during(work).unwrap_or_else(|error| {
        print_err(&format!(
            "Signals cannot be received, or there is no thread left: {error}"
        ));
        ExitCode::FAILURE
    })
}

fn obey_during(
    work: impl FnOnce(Signals, mpsc::Receiver<()>) -> ExitCode + Send + 'static,
) -> io::Result<ExitCode> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let caught = {
        let _entered = runtime.enter();
        Caught::receive()?
    };
    let signals = Signals::default();
    let (reload, reloads) = mpsc::channel(1);
    let (tell, ended) = oneshot::channel();
    let of_work = signals.clone();
    thread::Builder::new()
        .name("control".into())
        .stack_size(STACK_BYTES)
        .spawn(move || {
            // This thread has ended only if it was told to end without the work.
            let _too_late = tell.send(work(of_work, reloads));
        })?;
    Ok(runtime.block_on(async {
        tokio::select! {
            biased;
            code = ended => code.unwrap_or(ExitCode::from(PANICKED)),
            code = caught.obey(&signals, &reload) => code,
        }
    }))
}

impl Signals {
    /// The process serves now: it is stopped through the result, and ended if that takes longer than `limit`.
    pub(super) fn serving(&self, limit: Duration, logs: Logs) -> Shutdown {
        let _once = self.serving.set(Serving { limit, logs });
        self.shutdown.clone()
    }
}

impl Caught {
    fn receive() -> io::Result<Self> {
        // A file that reaches the limit of the process (`ulimit -f`) would end the process as well. With a handler, which
        // stays although nothing is received here, writing fails as on a full disk.
        drop(signal(SignalKind::from_raw(
            rustix::process::Signal::XFSZ.as_raw(),
        ))?);
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    /// Returns the exit status once the process has to end without waiting for anything else.
    async fn obey(mut self, Signals { shutdown, serving }: &Signals, reload: &mpsc::Sender<()>) -> ExitCode {
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
                    let has_finished = shutdown.finished.is_cancelled();
                    if !has_finished {
                        tracing::error!("Something kept the process from stopping in time; it is ended.");
                    }
                    if let Some(Serving { logs, .. }) = serving.get() {
                        logs.finish();
                    }
                    return if has_finished { ExitCode::SUCCESS } else { ExitCode::FAILURE };
                }
            };
            let Some(Serving { limit, .. }) = serving.get() else {
                let status = ENDED_BY_SIGNAL + stop.as_raw_value();
                return u8::try_from(status).map_or(ExitCode::FAILURE, ExitCode::from);
            };
            let left = if shutdown.gracefully.is_cancelled() {
                shutdown.at_once.cancel();
                GRACE
            } else {
                shutdown.gracefully.cancel();
                *limit + GRACE
            };
            end.as_mut().reset(Instant::now() + left);
        }
    }
}
