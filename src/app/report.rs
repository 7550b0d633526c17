//! What the process that started this one is told: when the sidecar answers, and that it goes on running.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{MissedTickBehavior, interval};

use crate::{heartbeat::Heartbeat, parent::Parent, readiness::Readiness};

/// How often it is told. A tenth of the shortest time in which a thread counts as stuck.
const PERIOD: Duration = Duration::from_millis(100);

/// How often it is looked whether the sidecar answers, until it does.
const SOON: Duration = Duration::from_millis(5);

/// A sidecar that cannot answer yet, since HEIR is away and there is nothing on disk, has started all the same.
const STARTED: Duration = Duration::from_secs(5);

/// Tells it again and again, as long as this task runs and the threads that answer the Router do.
pub(super) async fn report(
    parent: Arc<Parent>,
    heartbeat: Arc<Heartbeat>,
    readiness: Arc<Readiness>,
    stuck_after: Duration,
) {
    if parent.is_supervisor() {
        parent.tell(&format!("WATCHDOG_USEC={}", stuck_after.as_micros()));
    }
    let begun = Instant::now();
    let started = async {
        while !readiness.has_started() && begun.elapsed() < STARTED {
            tokio::time::sleep(SOON).await;
        }
        parent.tell("READY=1");
    };
    let running = async {
        let mut ticks = interval(PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            parent.tell(if heartbeat.is_stuck() {
                "WATCHDOG=trigger"
            } else {
                "WATCHDOG=1"
            });
        }
    };
    tokio::join!(started, running);
}
