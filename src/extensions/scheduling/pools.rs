//! The two worker pools: one for extensions that take long, one for those that seldom end in time.

use std::{io, sync::OnceLock};

use super::{
    lane::Place,
    worker_pool::{Owner, WorkerPool},
};
use crate::{extensions::config::ExtensionsConfig, thread_priority::Priority};

/// Both pools. The threads of each are started for its first call: most sidecars need none.
#[derive(Debug)]
pub(in crate::extensions) struct WorkerPools {
    threads: u32,
    max_queued: u32,
    slow: OnceLock<Result<WorkerPool, io::Error>>,
    idle: OnceLock<Result<WorkerPool, io::Error>>,
}

impl WorkerPools {
    /// Pools with as many threads, and as much room to wait, as configured.
    pub(in crate::extensions) fn new(config: &ExtensionsConfig) -> Self {
        Self {
            threads: config.worker_threads,
            max_queued: config.max_queued_calls,
            slow: OnceLock::new(),
            idle: OnceLock::new(),
        }
    }

    /// The pool for calls that run at this place.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub(in crate::extensions) fn pool(&self, place: Place) -> Result<&WorkerPool, &io::Error> {
        let (pool, priority) = match place {
            Place::Fast | Place::Slow => (&self.slow, Priority::Low),
            Place::Idle => (&self.idle, Priority::Idle),
        };
        pool.get_or_init(|| WorkerPool::start(self.threads, self.max_queued, priority))
            .as_ref()
    }

    /// Removes a call of the same extension that waits, of a tenant of which more wait. Returns whether there was one.
    pub(in crate::extensions) fn push_out(&self, owner: &Owner) -> bool {
        self.started().any(|pool| pool.push_out(owner))
    }

    /// Calls that wait for a thread.
    pub(in crate::extensions) fn waiting(&self) -> usize {
        self.started().map(WorkerPool::waiting).sum()
    }

    fn started(&self) -> impl Iterator<Item = &WorkerPool> {
        let pools = [&self.slow, &self.idle].into_iter();
        pools.filter_map(|pool| pool.get()?.as_ref().ok())
    }
}
