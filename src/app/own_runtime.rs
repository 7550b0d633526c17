//! Runtimes with threads of their own, beside the one that refreshes, replays and answers the admin listener. The data
//! threads answer the Router; the work threads read documents, make writes and build lists. So none of these can delay a
//! lookup.

use std::{io, time::Duration};

use tokio::runtime::{Builder, Handle, Runtime};

use crate::thread_priority::Priority;

/// Threads for what would hold a data thread up: two, so that one long document does not keep another waiting.
const WORK_THREADS: usize = 2;

/// A thread of a runtime that waits for files ends after this time without work. Something is done every few seconds, by one
/// after the other: with tokio's ten, every thread that was ever needed at a time would stay.
pub(crate) const KEEP_ALIVE: Duration = Duration::from_secs(2);

/// Sooner than that, and not so soon that work which goes round among them would keep two.
const KEEP: Duration = Duration::from_millis(1_400);

/// Keeps one of the threads of this runtime that may wait for a file. With one there, work is taken by it where the system has no
/// thread for another one; with none, asking for it would panic, and end the task or the request that asks.
pub(super) async fn keep_a_thread() {
    loop {
        // Nothing is done, and so nothing can fail.
        let _done = tokio::task::spawn_blocking(|| ()).await;
        tokio::time::sleep(KEEP).await;
    }
}

#[derive(Debug)]
pub(super) struct OwnRuntime(Option<Runtime>, Handle);

impl OwnRuntime {
    /// The threads that answer the Router.
    pub(super) fn data(threads: usize) -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        builder.on_thread_start(|| Priority::Prompt.take());
        Self::start(builder.thread_name("data").worker_threads(threads))
    }

    /// The threads for everything that takes the data threads too long.
    pub(super) fn work() -> io::Result<Self> {
        let mut builder = Builder::new_multi_thread();
        Self::start(builder.thread_name("work").worker_threads(WORK_THREADS))
    }

    fn start(builder: &mut Builder) -> io::Result<Self> {
        let runtime = builder.enable_all().thread_keep_alive(KEEP_ALIVE).build()?;
        let handle = runtime.handle().clone();
        handle.spawn(keep_a_thread());
        Ok(Self(Some(runtime), handle))
    }

    pub(super) fn handle(&self) -> &Handle {
        &self.1
    }

    /// Sockets belong to the runtime in which they are bound.
    pub(super) fn within<R>(&self, work: impl FnOnce() -> R) -> R {
        let _entered = self.1.enter();
        work()
    }
}

impl Drop for OwnRuntime {
    fn drop(&mut self) {
        // Dropping a runtime waits for its threads, which another runtime's thread must not do.
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::thread_priority::tests::{in_a_thread, of, shown};

    #[test]
    fn data_threads_are_prompt_and_work_threads_are_not() {
        let ordinary = in_a_thread(shown);
        for (runtime, expected) in [
            (OwnRuntime::data(1), in_a_thread(|| of(Priority::Prompt))),
            (OwnRuntime::work(), ordinary),
        ] {
            let (tell, told) = mpsc::channel();
            let runtime = runtime.unwrap();
            runtime.handle().spawn(async move { tell.send(shown()).unwrap() });
            assert_eq!(told.recv().unwrap(), expected);
        }
    }
}
