//! The threads that answer the Router. Refreshing, replaying and the admin listener run elsewhere, so that none of
//! them can delay a lookup.

use std::io;

use tokio::runtime::{Builder, Handle, Runtime};

use crate::thread_priority::Priority;

#[derive(Debug)]
pub(super) struct DataRuntime(Option<Runtime>, Handle);

impl DataRuntime {
    pub(super) fn start(workers: usize) -> io::Result<Self> {
        let runtime = Builder::new_multi_thread()
            .worker_threads(workers)
            .thread_name("data")
            .on_thread_start(|| Priority::Prompt.take())
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
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

impl Drop for DataRuntime {
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
    fn its_threads_are_prompt() {
        let runtime = DataRuntime::start(1).unwrap();
        let (tell, told) = mpsc::channel();
        runtime.handle().spawn(async move { tell.send(shown()).unwrap() });
        assert_eq!(told.recv().unwrap(), in_a_thread(|| of(Priority::Prompt)));
    }
}
