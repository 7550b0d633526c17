//! Background tasks, by name, so that one that dies is missed.

use std::{future::Future, time::Duration};

use tokio_util::task::TaskTracker;

#[derive(Debug)]
pub(super) struct Tasks(TaskTracker);

impl Tasks {
    pub(super) fn new() -> Self {
        Self(TaskTracker::new())
    }

    pub(super) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let running = tokio::spawn(task);
        self.0.spawn(async move {
            if let Err(error) = running.await {
                tracing::error!(task = name, %error, "A background task died; what it did stays undone until a restart.");
            }
        });
    }

    /// Waits for all of them, which were told to stop.
    pub(super) async fn finish(&self, patience: Duration) {
        self.0.close();
        if tokio::time::timeout(patience, self.0.wait()).await.is_err() {
            tracing::warn!(
                tasks = self.0.len(),
                "Some background tasks did not finish in time."
            );
        }
    }
}
