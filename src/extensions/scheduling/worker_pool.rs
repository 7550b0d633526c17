//! A few threads for extensions that take long. Each extension waits in a queue of its own and they take turns, so that one
//! which never ends in time delays only itself; and no extension occupies all the threads.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::thread_priority::Priority;

/// A call that waits for a thread.
type Job = Box<dyn FnOnce() + Send>;

/// The queues are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many slow calls wait already")]
pub(in crate::extensions) struct Full;

/// Identifies the extension of a call.
pub(in crate::extensions) type Owner = usize;

/// The threads, and the calls that wait for them.
#[derive(Debug)]
pub(in crate::extensions) struct WorkerPool(Arc<Shared>);

struct Shared {
    waiting: Mutex<Waiting>,
    wake: Condvar,
    max_queued: usize,
    /// How many threads one extension may occupy.
    share: usize,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

#[derive(Default)]
struct Waiting {
    queues: HashMap<Owner, Queue>,
    /// Extensions with calls that wait, in the order of their turns.
    turns: VecDeque<Owner>,
    count: usize,
    ended: bool,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    running: usize,
}

impl WorkerPool {
    /// Starts so many threads of a priority.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(in crate::extensions) fn start(
        threads: u32,
        max_queued: u32,
        priority: Priority,
    ) -> io::Result<Self> {
        let shared = Arc::new(Shared {
            waiting: Mutex::default(),
            wake: Condvar::new(),
            max_queued: max_queued as usize,
            share: (threads as usize).saturating_sub(1).max(1),
        });
        for number in 0..threads {
            let weak = Arc::downgrade(&shared);
            std::thread::Builder::new()
                .name(format!("extension-slow-{number}"))
                .spawn(move || {
                    priority.take();
                    work(&weak);
                })?;
        }
        Ok(Self(shared))
    }

    /// Puts a call into the queue of its extension.
    ///
    /// # Errors
    /// When all queues together hold `max_queued` calls, or this one half as many.
    pub(in crate::extensions) fn submit(
        &self,
        owner: Owner,
        job: impl FnOnce() + Send + 'static,
    ) -> Result<(), Full> {
        let mut waiting = self.0.lock();
        // No extension may use up the room of all.
        let own = waiting.queues.get(&owner).map_or(0, |queue| queue.jobs.len());
        if waiting.count >= self.0.max_queued || own >= self.0.max_queued.div_ceil(2) {
            return Err(Full);
        }
        waiting.count += 1;
        let queue = waiting.queues.entry(owner).or_default();
        queue.jobs.push_back(Box::new(job));
        if queue.jobs.len() == 1 {
            waiting.turns.push_back(owner);
        }
        drop(waiting);
        self.0.wake.notify_one();
        Ok(())
    }

    /// Calls that wait for a thread.
    pub(in crate::extensions) fn waiting(&self) -> usize {
        self.0.lock().count
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Waiting {
    /// The next call owner extension has a thread left, and its extension goes to the end of the line.
    fn next(&mut self, share: usize) -> Option<(Owner, Job)> {
        for _ in 0..self.turns.len() {
            let owner = self.turns.pop_front()?;
            let queue = self.queues.get_mut(&owner)?;
            if queue.running >= share {
                self.turns.push_back(owner);
                continue;
            }
            let job = queue.jobs.pop_front()?;
            queue.running += 1;
            if !queue.jobs.is_empty() {
                self.turns.push_back(owner);
            }
            self.count -= 1;
            return Some((owner, job));
        }
        None
    }

    fn done(&mut self, owner: Owner) {
        if let Some(queue) = self.queues.get_mut(&owner) {
            queue.running -= 1;
            if queue.running == 0 && queue.jobs.is_empty() {
                self.queues.remove(&owner);
            }
        }
    }
}

fn work(shared: &Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let (owner, job) = {
            let mut waiting = shared.lock();
            loop {
                if waiting.ended {
                    return;
                }
                match waiting.next(shared.share) {
                    Some(next) => break next,
                    None => waiting = shared.wake.wait(waiting).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        job();
        shared.lock().done(owner);
        // Another thread may have skipped this extension.
        shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::thread_priority::tests::{in_a_thread, of, shown};

    #[test]
    fn one_extension_does_not_keep_another_waiting() {
        let pool = WorkerPool::start(2, 64, Priority::Low).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..10 {
            let held = held.clone();
            pool.submit(1, move || assert!(held.lock().unwrap().recv().is_err()))
                .unwrap();
        }
        let (done, is_done) = mpsc::channel();
        pool.submit(2, move || done.send(()).unwrap()).unwrap();
        is_done.recv().unwrap();
        assert!(pool.waiting() >= 8);
        drop(release);
    }

    #[test]
    fn its_threads_stand_back() {
        for priority in [Priority::Low, Priority::Idle] {
            let pool = WorkerPool::start(1, 4, priority).unwrap();
            let (tell, told) = mpsc::channel();
            pool.submit(1, move || tell.send(shown()).unwrap()).unwrap();
            assert_eq!(told.recv().unwrap(), in_a_thread(move || of(priority)));
        }
    }

    #[test]
    fn there_is_an_end_to_waiting() {
        let pool = WorkerPool::start(1, 4, Priority::Low).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let wait = move || {
            begun.send(()).unwrap();
            assert!(held.recv().is_err());
        };
        pool.submit(1, wait).unwrap();
        has_begun.recv().unwrap();
        assert_eq!(pool.submit(1, || ()), Ok(()));
        assert_eq!(pool.submit(1, || ()), Ok(()));
        assert_eq!(
            pool.submit(1, || ()),
            Err(Full),
            "half of the room is all that one may have"
        );
        assert_eq!(pool.submit(2, || ()), Ok(()));
        assert_eq!(pool.submit(3, || ()), Ok(()));
        assert_eq!(pool.submit(4, || ()), Err(Full));
        drop(release);
    }
}
