//! Whether the threads that answer the Router still run. A process can be alive, and answer its probes, while one of them
//! is stuck: in a system call that does not return, or in a loop that never ends.

use std::{
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use prometheus::{Gauge, Registry};
use tokio::{
    runtime::{Handle, RuntimeMetrics},
    time::{Interval, MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

use crate::telemetry::registry::float_gauge;

/// How often the threads are looked at.
const PERIOD: Duration = Duration::from_millis(250);

/// Watches the threads of one runtime.
#[derive(Debug)]
pub struct Heartbeat {
    started: Instant,
    /// A thread that has not run for this long is stuck.
    limit: Duration,
    threads: RuntimeMetrics,
    /// When a task of the runtime last ran, in milliseconds after the start: timers and sockets are served.
    beat_ms: AtomicU64,
    seen: Mutex<Seen>,
    silence_seconds: Gauge,
}

#[derive(Debug)]
struct Seen {
    /// When the threads were last looked at; the thread that looks may have been stuck as well.
    at: Instant,
    workers: Vec<Worker>,
}

/// What was last seen of one thread.
#[derive(Debug, Clone, Copy)]
struct Worker {
    /// Odd while the thread waits for work.
    parks: u64,
    busy: Duration,
    /// When any of these had changed, or the thread was waiting.
    ran: Instant,
}

impl Heartbeat {
    /// Of the threads of `runtime`, which are stuck once they have not run for `limit`. Beats there as long as the result
    /// is kept.
    pub fn start(runtime: &Handle, limit: Duration, silence_seconds: Gauge) -> Arc<Self> {
        let (started, threads) = (Instant::now(), runtime.metrics());
        let worker = Worker {
            parks: 1,
            busy: Duration::ZERO,
            ran: started,
        };
        let heartbeat = Arc::new(Self {
            started,
            limit,
            seen: Mutex::new(Seen {
                at: started,
                workers: vec![worker; threads.num_workers()],
            }),
            threads,
            beat_ms: AtomicU64::new(0),
            silence_seconds,
        });
        runtime.spawn(beat(Arc::downgrade(&heartbeat)));
        heartbeat
    }

    /// Looks at each thread again and again, from outside, and says so where one is stuck or runs again.
    pub async fn watch(self: Arc<Self>, stop: CancellationToken) {
        let mut ticks = ticks();
        let mut was_stuck = false;
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = ticks.tick() => self.look(Instant::now()),
            }
            let silence_seconds = self.silence().as_secs();
            match (was_stuck, self.is_stuck()) {
                (false, true) => {
                    tracing::error!(silence_seconds, "A thread that answers the Router is stuck.");
                }
                (true, false) => tracing::warn!("The threads that answer the Router run again."),
                (true, true) | (false, false) => {}
            }
            was_stuck = self.is_stuck();
        }
    }

    fn look(&self, now: Instant) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.at = now;
        for (index, worker) in seen.workers.iter_mut().enumerate() {
            let parks = self.threads.worker_park_unpark_count(index);
            let busy = self.threads.worker_total_busy_duration(index);
            if parks % 2 == 1 || (parks, busy) != (worker.parks, worker.busy) {
                *worker = Worker {
                    parks,
                    busy,
                    ran: now,
                };
            }
        }
    }

    /// For how long the thread that is worst off has not run, to within a period or two.
    pub fn silence(&self) -> Duration {
        let beat = self.started + Duration::from_millis(self.beat_ms.load(Relaxed));
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let of_workers = seen.workers.iter().map(|worker| seen.at - worker.ran);
        of_workers.max().unwrap_or_default().max(beat.elapsed())
    }

    /// Brings the metric up to date.
    pub fn update_metric(&self) {
        self.silence_seconds.set(self.silence().as_secs_f64());
    }

    /// Whether a thread has not run for as long as it may.
    pub fn is_stuck(&self) -> bool {
        self.silence() > self.limit
    }
}

/// Registers how long the thread that is worst off has not run.
///
/// # Errors
/// When the name is taken.
pub fn silence_seconds(r: &Registry) -> Result<Gauge, prometheus::Error> {
    float_gauge(
        r,
        "beamline_sidecar_data_thread_silence_seconds",
        "Time since each of the threads that answer the Router has run or was idle, of the one that is worst off.",
    )
}

async fn beat(of: Weak<Heartbeat>) {
    let mut ticks = ticks();
    loop {
        ticks.tick().await;
        let Some(heartbeat) = of.upgrade() else { return };
        let now = u64::try_from(heartbeat.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        heartbeat.beat_ms.store(now, Relaxed);
    }
}

fn ticks() -> Interval {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::runtime::Builder;

    use super::*;

    #[expect(
        clippy::disallowed_methods,
        reason = "what is waited for is the passing of time"
    )]
    fn pause() {
        std::thread::sleep(Duration::from_millis(20));
    }

    /// Waits for what comes in its time, however busy the machine is.
    fn until(condition: impl Fn() -> bool) {
        while !condition() {
            pause();
        }
    }

    #[test]
    fn one_thread_of_several_that_is_stuck_is_noticed_and_so_is_its_return() {
        for threads in [1, 3] {
            let watched = Builder::new_multi_thread()
                .worker_threads(threads)
                .enable_all()
                .build()
                .unwrap();
            let watching = Builder::new_multi_thread()
                .worker_threads(1)
                .enable_all()
                .build()
                .unwrap();
            let gauge = silence_seconds(&Registry::new()).unwrap();
            let heartbeat = Heartbeat::start(watched.handle(), Duration::from_secs(2), gauge);
            watching.spawn(heartbeat.clone().watch(CancellationToken::new()));
            until(|| heartbeat.beat_ms.load(Relaxed) > 600);
            let (release, stuck) = mpsc::channel::<()>();
            watched.spawn(async move {
                let _released = stuck.recv();
            });
            until(|| heartbeat.is_stuck());
            release.send(()).unwrap();
            until(|| heartbeat.silence() < Duration::from_secs(1));
        }
    }

    #[test]
    fn a_thread_that_always_has_work_is_not_stuck() {
        let watched = Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()
            .unwrap();
        let gauge = silence_seconds(&Registry::new()).unwrap();
        let heartbeat = Heartbeat::start(watched.handle(), Duration::from_secs(1), gauge);
        let work = watched.spawn(async {
            loop {
                tokio::task::yield_now().await;
            }
        });
        let runs = || {
            pause();
            heartbeat.look(Instant::now());
            heartbeat.seen.lock().unwrap().workers[0].ran
        };
        let first = runs();
        until(|| runs() > first + Duration::from_millis(500));
        work.abort();
    }
}
