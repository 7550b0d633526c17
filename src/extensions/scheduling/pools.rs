//! The two worker pools: one for extensions that take long, one for those that seldom end in time.

use std::{
    io,
    sync::{Arc, OnceLock},
};

use super::{
    lane::Place,
    order::Owner,
    worker_pool::{Size, WorkerPool},
};
use crate::{
    extensions::{config::ExtensionsConfig, sandbox::Budget},
    thread_priority::Priority,
};

/// Both pools. The threads of each are started for its first call: most sidecars need none.
#[derive(Debug)]
pub(in crate::extensions) struct WorkerPools {
    size: Size,
    slow: OnceLock<Result<WorkerPool, io::Error>>,
    idle: OnceLock<Result<WorkerPool, io::Error>>,
}

impl WorkerPools {
    /// Pools with as many threads, and as much room to wait, as configured.
    pub(in crate::extensions) fn new(config: &ExtensionsConfig) -> Self {
        Self {
            size: Size {
                running: config.worker_threads as usize,
                // Those that pause in both leave the most instances to others.
                paused: config.max_instances as usize / 16,
                max_queued: config.max_queued_calls as usize,
            },
            slow: OnceLock::new(),
            idle: OnceLock::new(),
        }
    }

    /// The pool for calls that run at this place, whose memory is of this budget.
    ///
    /// # Errors
    /// When its threads cannot be started.
    pub(in crate::extensions) fn pool(
        &self,
        place: Place,
        budget: &Arc<Budget>,
    ) -> Result<&WorkerPool, &io::Error> {
        let (pool, priority) = match place {
            Place::Fast | Place::Slow => (&self.slow, Priority::Low),
            Place::Idle => (&self.idle, Priority::Idle),
        };
        pool.get_or_init(|| WorkerPool::start(self.size, priority, budget))
            .as_ref()
    }

    /// Removes a call of the same extension that waits, of a tenant with more calls. Returns whether there was one.
    pub(in crate::extensions) fn push_out(&self, owner: &Owner) -> bool {
        let own = self.started().map(|pool| pool.calls_of(owner)).sum();
        self.started().any(|pool| pool.push_out(owner, own))
    }

    /// Has a call of the same extension and another tenant give its place back, if one takes longer than usual, or seldom ends
    /// in time. Returns whether one did, or will before long.
    pub(in crate::extensions) fn make_room(&self, owner: &Owner) -> bool {
        let mut from_the_idlest = self.started().collect::<Vec<_>>();
        from_the_idlest.reverse();
        from_the_idlest.iter().any(|pool| pool.make_room(owner))
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
