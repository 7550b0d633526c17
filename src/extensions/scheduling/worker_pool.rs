//! A few threads for extensions that take long. Which call computes is chosen by `order.rs`; here are the threads: one for
//! each call that may have begun, of which as many compute as configured. Where there is no place left to wait, the last call
//! goes of the queue that is the longest.

use std::{
    collections::{HashMap, VecDeque},
    fmt, io,
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use super::order::{FOR_SHORT, Next, Now, Order, Owner, PAUSED, Probably, Room, SLICE};
use crate::{
    extensions::sandbox::{Budget, Go, Turns, processor_time},
    thread_priority::Priority,
};

/// Runs a call, or tells it that it does not run.
type Run = Box<dyn FnOnce(Turn) + Send>;

/// Gives back a call's place among those of its extension that may run at a time.
type GiveBack = Arc<dyn Fn() + Send + Sync>;

/// A call that waits for a thread.
struct Job {
    run: Run,
    give_back: GiveBack,
}

/// Why a call does not wait any longer.
#[derive(Debug)]
pub(in crate::extensions) enum Turn {
    /// A thread is free for it. While it computes, it asks whether it may go on.
    Run(Arc<Slot>),
    /// Another call takes its place, of a tenant or an extension of which fewer wait.
    PushedOut,
}

/// The queues are full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many slow calls wait already")]
pub(in crate::extensions) struct Full;

/// How many calls may be how far.
#[derive(Debug, Clone, Copy)]
pub(in crate::extensions) struct Size {
    /// Compute at a time.
    pub(in crate::extensions) running: usize,
    /// Have begun besides those, and hold instances.
    pub(in crate::extensions) paused: usize,
    /// Wait.
    pub(in crate::extensions) max_queued: usize,
}

/// The threads, and the calls that wait for them.
#[derive(Debug)]
pub(in crate::extensions) struct WorkerPool(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    /// There is a call to take up, or the pool ends.
    wake: Condvar,
    max_queued: usize,
    /// Its calls make room for calls of other tenants at once: on busy processors its threads hardly run, and would keep what
    /// they have for as long.
    gives_way: bool,
    budget: Arc<Budget>,
}

struct State {
    order: Order<Job>,
    /// Calls that were chosen and wait for a thread.
    chosen: VecDeque<(u64, Run)>,
    /// Of the calls that have begun.
    give_back: HashMap<u64, GiveBack>,
    /// What the threads of calls that have begun wait for while those pause.
    paused: HashMap<u64, Arc<Condvar>>,
    ended: bool,
}

/// The place of a call that has begun, on its thread.
pub(in crate::extensions) struct Slot {
    shared: Arc<Shared>,
    number: u64,
    /// The processor time of the thread when the call began.
    from: Duration,
    /// What it had computed when it last asked, in nanoseconds. The clock may tick more often than a slice is long, and a
    /// thread of low priority takes the lock no more often than it must.
    asked: AtomicU64,
    wake: Arc<Condvar>,
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Slot")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl WorkerPool {
    /// Starts threads of a priority. Calls pause only while this budget has memory for them.
    ///
    /// # Errors
    /// When a thread cannot be started.
    pub(in crate::extensions) fn start(
        Size {
            running,
            paused,
            max_queued,
        }: Size,
        priority: Priority,
        budget: &Arc<Budget>,
    ) -> io::Result<Self> {
        let room = Room {
            running,
            // No extension occupies all the threads.
            share: running.saturating_sub(1).max(1),
            begun: running + paused.min(PAUSED + FOR_SHORT),
        };
        let pool = Self(Arc::new(Shared {
            state: Mutex::new(State {
                order: Order::new(room),
                chosen: VecDeque::new(),
                give_back: HashMap::new(),
                paused: HashMap::new(),
                ended: false,
            }),
            wake: Condvar::new(),
            max_queued,
            gives_way: priority == Priority::Idle,
            budget: budget.clone(),
        }));
        for number in 0..room.begun {
            let weak = Arc::downgrade(&pool.0);
            std::thread::Builder::new()
                .name(format!("extension-slow-{number}"))
                .spawn(move || {
                    priority.take();
                    work(&weak);
                })?;
        }
        Ok(pool)
    }

    /// Puts a call into the queue of its extension and its tenant. Where there is no place left, one is made at the expense of a
    /// longer queue. `give_back` is called where the call has begun and is to end for the sake of another. The other takes its
    /// place then: its thread may notice much later.
    ///
    /// # Errors
    /// When all queues together hold `max_queued` calls, or those of this extension half as many, and none of them is longer
    /// than its own by more than one.
    pub(in crate::extensions) fn submit(
        &self,
        owner: Owner,
        probably: Probably,
        give_back: impl Fn() + Send + Sync + 'static,
        run: impl FnOnce(Turn) + Send + 'static,
    ) -> Result<(), Full> {
        let most = self.0.max_queued;
        let mut pushed_out = None;
        let mut state = self.0.lock();
        // No extension may use up the room of all.
        if state.order.waiting_of(owner.extension) >= most.div_ceil(2) {
            let own = state.order.calls_of(&owner);
            pushed_out = Some(state.order.push_out(&owner, own, true).ok_or(Full)?);
        } else if state.order.waiting() >= most {
            let own = state.order.calls_of(&owner);
            pushed_out = Some(state.order.push_out(&owner, own, false).ok_or(Full)?);
        }
        let job = Job {
            run: Box::new(run),
            give_back: Arc::new(give_back),
        };
        state.order.push(owner, probably, job);
        self.0.go_on(&mut state);
        drop(state);
        if let Some(pushed_out) = pushed_out {
            (pushed_out.run)(Turn::PushedOut);
        }
        Ok(())
    }

    /// How many calls of the owner wait or have begun.
    pub(in crate::extensions) fn calls_of(&self, owner: &Owner) -> usize {
        self.0.lock().order.calls_of(owner)
    }

    /// Removes a call of the same extension that waits, of a tenant with more calls than the owner's `own`. Returns whether
    /// there was one.
    pub(in crate::extensions) fn push_out(&self, owner: &Owner, own: usize) -> bool {
        let pushed_out = self.0.lock().order.push_out(owner, own, true);
        let was_one = pushed_out.is_some();
        if let Some(pushed_out) = pushed_out {
            (pushed_out.run)(Turn::PushedOut);
        }
        was_one
    }

    /// Has a call of the same extension and another tenant give its place back, if one takes longer than usual, or if the calls
    /// of this pool give way in any case. Returns whether one did, or will before long.
    pub(in crate::extensions) fn make_room(&self, owner: &Owner) -> bool {
        let mut state = self.0.lock();
        if self.0.gives_way
            && let Some(pushed_out) = state.order.push_out_another(owner)
        {
            drop(state);
            (pushed_out.run)(Turn::PushedOut);
            return true;
        }
        if let Some(number) = state.order.end_longest(owner, self.0.gives_way) {
            if let Some(give_back) = state.give_back.get(&number) {
                give_back();
            }
            if let Some(wake) = state.paused.get(&number) {
                wake.notify_one();
            }
            self.0.go_on(&mut state);
        }
        state.order.has_begun_of_others(owner)
    }

    /// Calls that wait for a thread.
    pub(in crate::extensions) fn waiting(&self) -> usize {
        self.0.lock().order.waiting()
    }
}

impl Drop for WorkerPool {
    fn drop(&mut self) {
        self.0.lock().ended = true;
        self.0.wake.notify_all();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has computed whatever is next, as long as there are threads for it.
    fn go_on(&self, state: &mut State) {
        while let Some(next) = state.order.next(!self.budget.is_half_used()) {
            match next {
                Next::Begins(number, job) => {
                    state.give_back.insert(number, job.give_back);
                    state.chosen.push_back((number, job.run));
                    self.wake.notify_one();
                }
                Next::GoesOn(number) | Next::Leaves(number) => {
                    if let Some(wake) = state.paused.get(&number) {
                        wake.notify_one();
                    }
                }
            }
        }
    }
}

impl Slot {
    fn ran(&self) -> Duration {
        processor_time().saturating_sub(self.from)
    }

    /// The call is over, which is to be known before its caller makes the next.
    pub(in crate::extensions) fn end(&self) {
        let mut state = self.shared.lock();
        state.give_back.remove(&self.number);
        state.order.ran(self.number, self.ran());
        state.order.done(self.number);
        self.shared.go_on(&mut state);
    }
}

impl Turns for Slot {
    fn wait(&self, until: Instant) -> Go {
        let ran = self.ran();
        let asked = Duration::from_nanos(self.asked.load(Ordering::Relaxed));
        if ran.saturating_sub(asked) < SLICE {
            return Go::On;
        }
        let nanos = u64::try_from(ran.as_nanos()).unwrap_or(u64::MAX);
        self.asked.store(nanos, Ordering::Relaxed);
        let mut state = self.shared.lock();
        if state.order.now(self.number) == Now::Leaves {
            return Go::Away;
        }
        state.order.ran(self.number, ran);
        state.order.pause(self.number);
        state.paused.insert(self.number, self.wake.clone());
        self.shared.go_on(&mut state);
        let go = loop {
            match state.order.now(self.number) {
                Now::Runs => break Go::On,
                Now::Leaves => break Go::Away,
                Now::Pauses => {}
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                state.order.leave(self.number);
                break Go::Late;
            }
            let woken = self.wake.wait_timeout(state, left);
            (state, _) = woken.unwrap_or_else(PoisonError::into_inner);
        };
        state.paused.remove(&self.number);
        go
    }
}

fn work(shared: &Weak<Shared>) {
    let wake = Arc::new(Condvar::new());
    loop {
        let Some(shared) = shared.upgrade() else { return };
        let (number, run) = {
            let mut state = shared.lock();
            loop {
                if state.ended {
                    return;
                }
                match state.chosen.pop_front() {
                    Some(chosen) => break chosen,
                    None => state = shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner),
                }
            }
        };
        let slot = Arc::new(Slot {
            shared: shared.clone(),
            number,
            from: processor_time(),
            asked: AtomicU64::new(0),
            wake: wake.clone(),
        });
        run(Turn::Run(slot.clone()));
        slot.end();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{atomic::AtomicBool, mpsc};

    use super::*;
    use crate::thread_priority::tests::{in_a_thread, of as priority_shown, shown};

    /// Nothing is known of the calls here.
    const PROBABLY: Probably = Probably {
        last: None,
        usual: Duration::from_secs(1),
    };

    fn started(running: usize, max_queued: usize, priority: Priority) -> WorkerPool {
        let size = Size {
            running,
            paused: usize::MAX,
            max_queued,
        };
        WorkerPool::start(size, priority, &Budget::new(u64::MAX)).unwrap()
    }

    fn of(extension: usize, tenant: &str) -> Owner {
        Owner {
            extension,
            tenant: tenant.into(),
        }
    }

    #[test]
    fn one_extension_does_not_keep_another_waiting() {
        let pool = started(2, 64, Priority::Low);
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..10 {
            let held = held.clone();
            pool.submit(
                of(1, "t"),
                PROBABLY,
                || (),
                move |_| assert!(held.lock().unwrap().recv().is_err()),
            )
            .unwrap();
        }
        let (done, is_done) = mpsc::channel();
        pool.submit(of(2, "t"), PROBABLY, || (), move |_| done.send(()).unwrap())
            .unwrap();
        is_done.recv().unwrap();
        assert!(pool.waiting() >= 8);
        drop(release);
    }

    /// A pool of one thread that is busy until what is returned is dropped.
    fn busy(max_queued: usize) -> (WorkerPool, mpsc::Sender<()>) {
        let pool = started(1, max_queued, Priority::Low);
        let (release, held) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        let wait = move |_| {
            begun.send(()).unwrap();
            assert!(held.recv().is_err());
        };
        pool.submit(of(0, "busy"), PROBABLY, || (), wait).unwrap();
        has_begun.recv().unwrap();
        (pool, release)
    }

    #[test]
    fn one_tenant_of_an_extension_does_not_keep_another_waiting() {
        let (pool, release) = busy(64);
        let (done, order) = mpsc::channel();
        let submit = |tenant: &'static str| {
            let done = done.clone();
            pool.submit(
                of(1, tenant),
                PROBABLY,
                || (),
                move |_| done.send(tenant).unwrap(),
            )
        };
        for _ in 0..20 {
            submit("a").unwrap();
        }
        submit("b").unwrap();
        submit("c").unwrap();
        drop(release);
        let order: Vec<_> = order.iter().take(22).collect();
        assert_eq!(order[..3], ["a", "b", "c"]);
    }

    /// Computes until it is told to stop, as a call does: asked at each tick.
    fn compute(slot: &Slot, stop: &AtomicBool, until: Instant) -> Go {
        loop {
            let began = processor_time();
            while processor_time() - began < Duration::from_millis(1) {
                std::hint::black_box(());
            }
            match slot.wait(until) {
                Go::On if stop.load(Ordering::SeqCst) => return Go::On,
                Go::On => {}
                other => return other,
            }
        }
    }

    #[test]
    fn a_call_that_goes_on_and_on_pauses_for_those_of_other_tenants() {
        let pool = started(1, 64, Priority::Low);
        let far = Instant::now() + Duration::from_secs(3_600);
        let stop = Arc::new(AtomicBool::new(false));
        let (done, is_done) = mpsc::channel();
        for tenant in ["one", "two", "three"] {
            let (stop, done) = (stop.clone(), done.clone());
            let job = move |turn| {
                let Turn::Run(slot) = turn else { return };
                done.send((tenant, compute(&slot, &stop, far))).unwrap();
            };
            pool.submit(of(1, tenant), PROBABLY, || (), job).unwrap();
        }
        // There is one thread that computes, and none of the three ends.
        for _ in 0..20 {
            let (tell, told) = mpsc::channel();
            pool.submit(of(1, "short"), PROBABLY, || (), move |_| tell.send(()).unwrap())
                .unwrap();
            told.recv().unwrap();
        }
        assert!(is_done.try_recv().is_err());
        // One that is not waited for any longer goes, whether or not it is its turn.
        let due = Instant::now() + Duration::from_millis(50);
        let (tell, told) = mpsc::channel();
        let never = Arc::new(AtomicBool::new(false));
        let job = move |turn| {
            let Turn::Run(slot) = turn else { return };
            tell.send(compute(&slot, &never, due)).unwrap();
        };
        pool.submit(of(1, "late"), PROBABLY, || (), job).unwrap();
        assert_eq!(told.recv().unwrap(), Go::Late);
        stop.store(true, Ordering::SeqCst);
        let mut ended: Vec<_> = is_done.iter().take(3).collect();
        ended.sort_unstable_by_key(|(tenant, _)| *tenant);
        assert_eq!(ended, [("one", Go::On), ("three", Go::On), ("two", Go::On)]);
    }

    #[test]
    fn what_takes_longer_than_usual_makes_room_for_another_tenant() {
        let pool = started(1, 64, Priority::Low);
        let far = Instant::now() + Duration::from_secs(3_600);
        let (begun, has_begun) = mpsc::channel();
        let (done, is_done) = mpsc::channel();
        let never = Arc::new(AtomicBool::new(false));
        let job = move |turn| {
            let Turn::Run(slot) = turn else { return };
            begun.send(()).unwrap();
            done.send(compute(&slot, &never, far)).unwrap();
        };
        let probably = Probably {
            last: None,
            usual: Duration::from_millis(10),
        };
        pool.submit(of(1, "a"), probably, || (), job).unwrap();
        has_begun.recv().unwrap();
        assert!(!pool.make_room(&of(1, "a")), "it is its own");
        assert!(!pool.make_room(&of(2, "b")), "it is another extension");
        assert!(pool.make_room(&of(1, "b")), "it is worth waiting for");
        let ended = loop {
            pool.make_room(&of(1, "b"));
            match is_done.recv_timeout(Duration::from_millis(5)) {
                Ok(ended) => break ended,
                Err(_) => continue,
            }
        };
        assert_eq!(ended, Go::Away);
    }

    #[test]
    fn what_runs_only_when_nothing_else_does_keeps_its_place_from_no_other_tenant() {
        for priority in [Priority::Low, Priority::Idle] {
            let pool = started(1, 64, priority);
            let places = Arc::new(AtomicU64::new(0));
            let (release, held) = mpsc::channel::<()>();
            let held = Arc::new(Mutex::new(held));
            let (tell, told) = mpsc::channel();
            for tenant in ["begun", "waits"] {
                places.fetch_add(1, Ordering::SeqCst);
                let (given_back, over) = (places.clone(), places.clone());
                let give_back = move || {
                    given_back.fetch_sub(1, Ordering::SeqCst);
                };
                let (held, tell) = (held.clone(), tell.clone());
                let run = move |turn| match turn {
                    Turn::Run(_) => {
                        tell.send(tenant).unwrap();
                        // As one that is not given a processor: it asks for nothing.
                        assert!(held.lock().unwrap().recv().is_err());
                    }
                    Turn::PushedOut => {
                        over.fetch_sub(1, Ordering::SeqCst);
                    }
                };
                pool.submit(of(1, tenant), PROBABLY, give_back, run).unwrap();
            }
            assert_eq!(told.recv().unwrap(), "begun");
            let left = [0; 2].map(|_| {
                assert!(pool.make_room(&of(1, "another")));
                places.load(Ordering::SeqCst)
            });
            let expected = if priority == Priority::Idle {
                [1, 0]
            } else {
                [2, 2]
            };
            assert_eq!(left, expected, "{priority:?}");
            drop(release);
        }
    }

    #[test]
    fn a_full_queue_makes_room_for_those_of_which_fewer_wait() {
        let (pool, release) = busy(16);
        let (done, turns) = mpsc::channel();
        let submit = |extension: usize, tenant: &'static str| {
            let done = done.clone();
            pool.submit(
                of(extension, tenant),
                PROBABLY,
                || (),
                move |turn| {
                    let ran = matches!(turn, Turn::Run(_));
                    done.send((extension, tenant, ran)).unwrap();
                },
            )
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
        assert!(pushed_out[..4].iter().all(|turn| *turn == (1, "a", false)));
        assert!(pool.push_out(&of(1, "c"), 0) && !pool.push_out(&of(5, "c"), 0));
        drop(release);
        let ran = (0..15).map(|_| turns.recv().unwrap()).filter(|turn| turn.2);
        assert_eq!(ran.count(), 15 - 1);
    }

    #[test]
    fn its_threads_stand_back() {
        for priority in [Priority::Low, Priority::Idle] {
            let pool = started(1, 4, priority);
            let (tell, told) = mpsc::channel();
            pool.submit(of(1, "t"), PROBABLY, || (), move |_| tell.send(shown()).unwrap())
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
        assert_eq!(pool.submit(of(1, "t"), PROBABLY, || (), |_| ()), Ok(()));
        assert_eq!(pool.submit(of(1, "t"), PROBABLY, || (), |_| ()), Ok(()));
        assert_eq!(
            pool.submit(of(1, "t"), PROBABLY, || (), |_| ()),
            Err(Full),
            "half of the room is all that one may have"
        );
        assert_eq!(pool.submit(of(2, "t"), PROBABLY, || (), |_| ()), Ok(()));
        assert_eq!(pool.submit(of(3, "t"), PROBABLY, || (), |_| ()), Ok(()));
        assert_eq!(pool.submit(of(3, "t"), PROBABLY, || (), |_| ()), Err(Full));
        drop(release);
    }
}
