//! A few threads for extensions that take long. The calls of each extension wait in a queue of their own for each tenant.
//! Extensions take turns, and so do the tenants of one, so that whichever calls most delays only itself; and no extension
//! occupies all the threads. Where there is no place left to wait, the last call goes of the queue that is the longest.

use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak},
};

use crate::thread_priority::Priority;

/// A call that waits for a thread.
type Job = Box<dyn FnOnce(Turn) + Send>;

/// Why a call does not wait any longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::extensions) enum Turn {
    /// A thread is free for it.
    Run,
    /// Another call takes its place, of a tenant or an extension of which fewer wait.
    PushedOut,
}

/// The queues are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many slow calls wait already")]
pub(in crate::extensions) struct Full;

/// Whose a call is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::extensions) struct Owner {
    pub(in crate::extensions) extension: usize,
    pub(in crate::extensions) tenant: Box<str>,
}

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
    extensions: HashMap<usize, Queues>,
    /// Extensions with calls that wait, in the order of their turns.
    turns: VecDeque<usize>,
    count: usize,
    ended: bool,
}

/// The calls of one extension.
#[derive(Default)]
struct Queues {
    /// By tenant; none is empty.
    tenants: HashMap<Box<str>, VecDeque<Job>>,
    /// Tenants with calls that wait, in the order of their turns.
    turns: VecDeque<Box<str>>,
    count: usize,
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

    /// Puts a call into the queue of its extension and its tenant. Where there is no place left, one is made at the expense
    /// of a longer queue.
    ///
    /// # Errors
    /// When all queues together hold `max_queued` calls, or those of this extension half as many, and none of them is longer
    /// than its own by more than one.
    pub(in crate::extensions) fn submit(
        &self,
        owner: Owner,
        job: impl FnOnce(Turn) + Send + 'static,
    ) -> Result<(), Full> {
        let most = self.0.max_queued;
        let mut pushed_out = None;
        let mut waiting = self.0.lock();
        // No extension may use up the room of all.
        if waiting.of(owner.extension) >= most.div_ceil(2) {
            pushed_out = Some(waiting.push_out(&owner, true).ok_or(Full)?);
        } else if waiting.count >= most {
            pushed_out = Some(waiting.push_out(&owner, false).ok_or(Full)?);
        }
        waiting.push(owner, Box::new(job));
        drop(waiting);
        self.0.wake.notify_one();
        if let Some(pushed_out) = pushed_out {
            pushed_out(Turn::PushedOut);
        }
        Ok(())
    }

    /// Removes a call of the same extension that waits, of a tenant of which more wait. Returns whether there was one.
    pub(in crate::extensions) fn push_out(&self, owner: &Owner) -> bool {
        let pushed_out = self.0.lock().push_out(owner, true);
        let was_one = pushed_out.is_some();
        if let Some(pushed_out) = pushed_out {
            pushed_out(Turn::PushedOut);
        }
        was_one
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
    /// How many calls of an extension wait.
    fn of(&self, extension: usize) -> usize {
        self.extensions.get(&extension).map_or(0, |queues| queues.count)
    }

    fn push(&mut self, owner: Owner, job: Job) {
        let Owner { extension, tenant } = owner;
        let queues = self.extensions.entry(extension).or_default();
        if queues.count == 0 {
            self.turns.push_back(extension);
        }
        queues.count += 1;
        self.count += 1;
        match queues.tenants.get_mut(&tenant) {
            Some(jobs) => jobs.push_back(job),
            None => {
                queues.turns.push_back(tenant.clone());
                queues.tenants.insert(tenant, VecDeque::from([job]));
            }
        }
    }

    /// The next call whose extension has a thread left. Its tenant and its extension go to the end of their lines.
    fn next(&mut self, share: usize) -> Option<(usize, Job)> {
        for _ in 0..self.turns.len() {
            let extension = self.turns.pop_front()?;
            let queues = self.extensions.get_mut(&extension)?;
            if queues.running >= share {
                self.turns.push_back(extension);
                continue;
            }
            let job = queues.next()?;
            queues.running += 1;
            if queues.count > 0 {
                self.turns.push_back(extension);
            }
            self.count -= 1;
            return Some((extension, job));
        }
        None
    }

    /// Takes the last call out of the longest queue, if more than one call more waits there than in the caller's own:
    /// only among those of the caller's extension, or among all.
    fn push_out(&mut self, owner: &Owner, of_its_own: bool) -> Option<Job> {
        let own = self.extensions.get(&owner.extension);
        let own = own.and_then(|queues| queues.tenants.get(&owner.tenant));
        let own = own.map_or(0, VecDeque::len);
        let candidates = self
            .extensions
            .iter()
            .filter(|(extension, _)| !of_its_own || **extension == owner.extension);
        let queues = candidates.flat_map(|(extension, queues)| {
            let lengths = queues.tenants.iter().map(|(tenant, jobs)| (jobs.len(), tenant));
            lengths.map(|(length, tenant)| (length, *extension, tenant))
        });
        let (length, extension, tenant) = queues.max_by_key(|(length, ..)| *length)?;
        if length < own + 2 {
            return None;
        }
        let tenant = tenant.clone();
        let queues = self.extensions.get_mut(&extension)?;
        // It held two calls at least, so it keeps its turn.
        let job = queues.tenants.get_mut(&tenant)?.pop_back()?;
        queues.count -= 1;
        self.count -= 1;
        Some(job)
    }

    fn done(&mut self, extension: usize) {
        if let Some(queues) = self.extensions.get_mut(&extension) {
            queues.running -= 1;
            if queues.running == 0 && queues.count == 0 {
                self.extensions.remove(&extension);
            }
        }
    }
}

impl Queues {
    /// The next call of the tenant whose turn it is.
    fn next(&mut self) -> Option<Job> {
        let tenant = self.turns.pop_front()?;
        let jobs = self.tenants.get_mut(&tenant)?;
        let job = jobs.pop_front()?;
        self.count -= 1;
        if jobs.is_empty() {
            self.tenants.remove(&tenant);
        } else {
            self.turns.push_back(tenant);
        }
        Some(job)
    }
}

fn work(shared: &Weak<Shared>) {
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let (extension, job) = {
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
        job(Turn::Run);
        shared.lock().done(extension);
        // Another thread may have skipped this extension.
        shared.wake.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;
    use crate::thread_priority::tests::{in_a_thread, of as priority_shown, shown};

    fn of(extension: usize, tenant: &str) -> Owner {
        Owner {
            extension,
            tenant: tenant.into(),
        }
    }

    #[test]
    fn one_extension_does_not_keep_another_waiting() {
        let pool = WorkerPool::start(2, 64, Priority::Low).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..10 {
            let held = held.clone();
            pool.submit(of(1, "t"), move |_| assert!(held.lock().unwrap().recv().is_err()))
                .unwrap();
        }
        let (done, is_done) = mpsc::channel();
        pool.submit(of(2, "t"), move |_| done.send(()).unwrap()).unwrap();
        is_done.recv().unwrap();
        assert!(pool.waiting() >= 8);
        drop(release);
    }

    /// A pool of one thread that is busy until what is returned is dropped.
    fn busy(max_queued: u32) -> (WorkerPool, mpsc::Sender<()>) {
        let pool = WorkerPool::start(1, max_queued, Priority::Low).unwrap();
        let (release, held) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let wait = move |_| {
            begun.send(()).unwrap();
            assert!(held.recv().is_err());
        };
        pool.submit(of(0, "busy"), wait).unwrap();
        has_begun.recv().unwrap();
        (pool, release)
    }

    #[test]
    fn one_tenant_of_an_extension_does_not_keep_another_waiting() {
        let (pool, release) = busy(64);
        let (done, order) = mpsc::channel();
        let submit = |tenant: &'static str| {
            let done = done.clone();
            pool.submit(of(1, tenant), move |_| done.send(tenant).unwrap())
        };
        for _ in 0..20 {
            submit("a").unwrap();
        }
        submit("b").unwrap();
        submit("c").unwrap();
        submit("b").unwrap();
        drop(release);
        let order: Vec<_> = order.iter().take(8).collect();
        assert_eq!(order, ["a", "b", "c", "a", "b", "a", "a", "a"]);
    }

    #[test]
    fn a_full_queue_makes_room_for_those_of_which_fewer_wait() {
        let (pool, release) = busy(16);
        let (done, turns) = mpsc::channel();
        let submit = |extension: usize, tenant: &'static str| {
            let done = done.clone();
            pool.submit(of(extension, tenant), move |turn| {
                done.send((extension, tenant, turn)).unwrap();
            })
        };
        for _ in 0..8 {
            submit(1, "a").unwrap();
        }
        assert_eq!(
            submit(1, "a"),
            Err(Full),
            "half of the room is all that one may have"
        );
        for _ in 0..4 {
            submit(1, "b").unwrap();
        }
        assert_eq!(submit(1, "b"), Err(Full), "both have as many now");
        for _ in 0..4 {
            submit(2, "a").unwrap();
            submit(3, "a").unwrap();
        }
        submit(4, "a").unwrap();
        assert_eq!(pool.waiting(), 16);
        let pushed_out: Vec<_> = turns.try_iter().collect();
        assert_eq!(pushed_out.len(), 5);
        assert!(
            pushed_out[..4]
                .iter()
                .all(|turn| *turn == (1, "a", Turn::PushedOut))
        );
        assert!(pool.push_out(&of(1, "c")) && !pool.push_out(&of(5, "c")));
        drop(release);
        let ran = (0..15)
            .map(|_| turns.recv().unwrap())
            .filter(|turn| turn.2 == Turn::Run);
        assert_eq!(ran.count(), 15 - 1);
    }

    #[test]
    fn its_threads_stand_back() {
        for priority in [Priority::Low, Priority::Idle] {
            let pool = WorkerPool::start(1, 4, priority).unwrap();
            let (tell, told) = mpsc::channel();
            pool.submit(of(1, "t"), move |_| tell.send(shown()).unwrap())
                .unwrap();
            assert_eq!(
                told.recv().unwrap(),
                in_a_thread(move || priority_shown(priority))
            );
        }
    }

    #[test]
    fn there_is_an_end_to_waiting() {
        let (pool, release) = busy(4);
        assert_eq!(pool.submit(of(1, "t"), |_| ()), Ok(()));
        assert_eq!(pool.submit(of(1, "t"), |_| ()), Ok(()));
        assert_eq!(
            pool.submit(of(1, "t"), |_| ()),
            Err(Full),
            "half of the room is all that one may have"
        );
        assert_eq!(pool.submit(of(2, "t"), |_| ()), Ok(()));
        assert_eq!(pool.submit(of(3, "t"), |_| ()), Ok(()));
        assert_eq!(pool.submit(of(3, "t"), |_| ()), Err(Full));
        drop(release);
    }
}
