//! Background tasks, by name, so that one that dies is missed.

use std::{fmt, future::Future, pin::Pin};

use tokio::time::Instant;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

type Start = Box<dyn FnOnce(CancellationToken) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// A task that is not running yet: a part that is built returns it, and it starts once everything is.
pub(super) struct Task {
    name: &'static str,
    start: Start,
}

impl Task {
    /// A task that runs until its token is cancelled.
    pub(super) fn new<F>(
        name: &'static str,
        start: impl FnOnce(CancellationToken) -> F + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self {
            name,
            start: Box::new(|stop| Box::pin(start(stop))),
        }
    }
}

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Task").field(&self.name).finish()
    }
}

/// Tasks that run.
#[derive(Debug)]
pub(super) struct Tasks {
    tracker: TaskTracker,
    stop: CancellationToken,
}

impl Tasks {
    /// Starts them.
    pub(super) fn start(tasks: Vec<Task>) -> Self {
        let running = Self {
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
        };
        for task in tasks {
            running.spawn(task);
        }
        running
    }

    fn spawn(&self, task: Task) {
        let running = tokio::spawn((task.start)(self.stop.clone()));
        self.tracker.spawn(async move {
            if let Err(error) = running.await {
                tracing::error!(task = task.name, %error, "A background task died; what it did stays undone until a restart.");
            }
        });
    }

    /// Tells all of them to stop, and waits for them.
    pub(super) async fn stop(&self, deadline: Instant) {
        self.stop.cancel();
        self.tracker.close();
        if tokio::time::timeout_at(deadline, self.tracker.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                tasks = self.tracker.len(),
                "Some background tasks did not finish in time."
            );
        }
    }
}
