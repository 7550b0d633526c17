//! The memory of decisions, and the tasks that keep it small and current.

use std::{sync::Arc, time::Duration};

use super::{error::BuildError, metrics::Metrics, state_dir::StateDir, tasks::Task, upkeep};
use crate::{
    clock,
    config::Config,
    decide::memory::{Memory, persist},
    health_check::HealthChecker,
    snapshot::SnapshotStore,
    telemetry::chain,
};

/// The memory, with what an earlier run left of it where that is configured.
pub(super) fn build(
    config: &Config,
    state: Option<&StateDir>,
    store: &Arc<SnapshotStore>,
    metrics: &Metrics,
) -> Result<(Arc<Memory>, Vec<Task>), BuildError> {
    let memory = Arc::new(Memory::new(config.decide.memory_limits()));
    let mut tasks = Vec::new();
    if let Some(state) = state.filter(|_| config.decide.persist) {
        let dir = state.path().to_owned();
        match persist::load(&memory, &dir, clock::now()) {
            Ok(loaded) => tracing::info!(?loaded, "Read what decisions remember."),
            Err(error) => tracing::error!(error = chain(&error), "Decisions begin with an empty memory."),
        }
        let (memory, every) = (
            memory.clone(),
            Duration::from_millis(config.decide.persist_interval_ms),
        );
        tasks.push(Task::new("persist", move |stop| {
            persist::run(memory, dir, every, stop)
        }));
    }
    if config.health_checks.enabled {
        let checker = HealthChecker::connect(config.health_checks.clone(), metrics.health_check.clone())?;
        let (store, memory) = (store.clone(), memory.clone());
        tasks.push(Task::new("health_checks", move |stop| {
            checker.run(store, memory, stop)
        }));
    }
    let (swept, store) = (memory.clone(), store.clone());
    tasks.push(Task::new("upkeep", move |stop| upkeep::run(store, swept, stop)));
    tasks.push(Task::new("clock", upkeep::follow_the_clock));
    Ok((memory, tasks))
}
