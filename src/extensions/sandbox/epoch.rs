//! The clock that ends calls: it advances the engines' epochs, which compiled code checks in every loop and function.

use std::{
    collections::BTreeMap,
    fmt, io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, TryLockError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    thread::Thread,
    time::{Duration, Instant},
};

use wasmtime::{Engine, EngineWeak};

use crate::thread_priority::Priority;

/// How often a running call is checked.
const TICK: Duration = Duration::from_millis(1);
/// How often, where only trusted calls run: each tick takes a processor from another thread.
const SELDOM: Duration = Duration::from_millis(10);
/// Ticks without a call after which the clock stops, and without one that is watched after which its ticks become rare: to
/// wake it costs more than to let it tick.
const IDLE_TICKS: u32 = 100;

/// Advances the engines' epochs while calls are under way, and sleeps otherwise.
pub(in crate::extensions) struct EpochClock {
    /// Calls that are checked at every tick.
    near: AtomicUsize,
    /// Those of them that need a tick each millisecond.
    watched: AtomicUsize,
    /// Whether there was such a call since the last tick.
    was_watched: AtomicBool,
    sleep: AtomicU8,
    /// Calls that are checked only at their deadlines.
    far_running: AtomicUsize,
    far: Mutex<Far>,
    thread: OnceLock<Thread>,
    engines: Mutex<Vec<EngineWeak>>,
}

/// Calls that are checked only at their deadlines. Threads hold it that may not get a processor for a while, so the clock
/// does not wait for it.
#[derive(Debug, Default)]
struct Far {
    /// By number: when to look.
    dues: BTreeMap<u64, Instant>,
    last: u64,
    /// The clock wakes by then. `None`: it wakes when a call asks for it.
    wakes: Option<Instant>,
}

/// How deeply the clock sleeps.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
enum Sleep {
    /// The next tick comes soon, by itself.
    Awake,
    /// It comes late, unless a call that is watched asks for it.
    Light,
    /// It comes when a call asks for it.
    Deep,
}

impl fmt::Debug for EpochClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochClock")
            .field("near", &self.near)
            .field("watched", &self.watched)
            .field("sleep", &self.sleep)
            .field("far", &self.far)
            .finish_non_exhaustive()
    }
}

/// How often a call is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Seldom: it is trusted to be quick.
    Trusting,
    /// Each millisecond. More such calls will follow soon: to wake the clock for each costs more than to let it tick.
    Close,
    /// At its deadline: it is on a worker thread, where it holds up no request before.
    At(Instant),
}

/// A running call, for which the clock ticks.
#[derive(Debug)]
pub(super) struct Running<'a> {
    clock: &'a EpochClock,
    counted: Counted,
}

/// Where a call is counted.
#[derive(Debug, Clone, Copy)]
enum Counted {
    Near,
    Watched,
    Far(u64),
}

impl EpochClock {
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let clock = Arc::new(Self {
            near: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            was_watched: AtomicBool::new(false),
            sleep: AtomicU8::new(Sleep::Awake as u8),
            far_running: AtomicUsize::new(0),
            far: Mutex::default(),
            thread: OnceLock::new(),
            engines: Mutex::default(),
        });
        let weak = Arc::downgrade(&clock);
        let handle = std::thread::Builder::new()
            .name("extension-clock".into())
            .spawn(move || {
                Priority::Prompt.take();
                run(&weak);
            })?;
        // Read only by those who come later, and then it is set.
        let _once = clock.thread.set(handle.thread().clone());
        Ok(clock)
    }

    /// Advances the epoch of an engine too, as long as that lives.
    pub(super) fn advances(&self, engine: &Engine) {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push(engine.weak());
    }

    /// A tick, for the calls whose deadline has passed and for all that are checked at every tick.
    fn advance(&self) {
        if let Some(mut far) = self.far_if_free() {
            let now = Instant::now();
            for due in far.dues.values_mut().filter(|due| **due <= now) {
                // A call that is being checked for another reason at this moment may miss the tick.
                *due = now + SELDOM;
            }
        }
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        for engine in engines.iter().filter_map(EngineWeak::upgrade) {
            engine.increment_epoch();
        }
    }

    /// To be called before the first instruction; the call is checked for as long as the returned guard lives.
    pub(super) fn running(&self, watch: Watch) -> Running<'_> {
        let counted = match watch {
            Watch::Trusting => {
                self.near.fetch_add(1, Ordering::SeqCst);
                self.wake_from(Sleep::Deep);
                Counted::Near
            }
            Watch::Close => {
                self.near.fetch_add(1, Ordering::SeqCst);
                self.watched.fetch_add(1, Ordering::SeqCst);
                if !self.was_watched.load(Ordering::SeqCst) {
                    self.was_watched.store(true, Ordering::SeqCst);
                }
                self.wake_from(Sleep::Light);
                Counted::Watched
            }
            Watch::At(due) => {
                self.far_running.fetch_add(1, Ordering::Relaxed);
                let mut far = self.far();
                far.last += 1;
                let number = far.last;
                far.dues.insert(number, due);
                let is_late = far.wakes.is_none_or(|wakes| due < wakes);
                drop(far);
                if is_late {
                    self.wake_from(Sleep::Light);
                }
                Counted::Far(number)
            }
        };
        Running { clock: self, counted }
    }

    /// From this sleep or a deeper one.
    fn wake_from(&self, sleep: Sleep) {
        if self.sleep.load(Ordering::SeqCst) >= sleep as u8
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    /// How many calls are running.
    pub(in crate::extensions) fn calls(&self) -> usize {
        self.near.load(Ordering::Relaxed) + self.far_running.load(Ordering::Relaxed)
    }

    fn far(&self) -> MutexGuard<'_, Far> {
        self.far.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn far_if_free(&self) -> Option<MutexGuard<'_, Far>> {
        match self.far.try_lock() {
            Ok(far) => Some(far),
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    fn has_near(&self) -> bool {
        self.near.load(Ordering::SeqCst) > 0
    }

    /// A call that begins now sees how the clock sleeps, or the next [`Self::is_wanted`] sees the call: both sides
    /// write before they read.
    fn sleeps(&self, sleep: Sleep) {
        self.sleep.store(sleep as u8, Ordering::SeqCst);
    }

    /// Whether something is under way for which it must not sleep so.
    fn is_wanted(&self, sleep: Sleep) -> bool {
        match sleep {
            Sleep::Awake => true,
            Sleep::Light => {
                self.watched.load(Ordering::SeqCst) > 0 || self.was_watched.load(Ordering::SeqCst)
            }
            Sleep::Deep => self.has_near(),
        }
    }

    /// When the next tick is due of one that may come so late, and which call was the last to ask for one of its own.
    /// Calls that begin from now on see it. `None`: it cannot be said.
    fn wakes_by(&self, most: Option<Instant>) -> Option<(Option<Instant>, u64)> {
        let mut far = self.far_if_free()?;
        far.wakes = far.dues.values().copied().chain(most).min();
        Some((far.wakes, far.last))
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        match self.counted {
            Counted::Far(number) => {
                self.clock.far().dues.remove(&number);
                self.clock.far_running.fetch_sub(1, Ordering::Relaxed);
                return;
            }
            Counted::Watched => {
                self.clock.watched.fetch_sub(1, Ordering::SeqCst);
            }
            Counted::Near => {}
        }
        self.clock.near.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for EpochClock {
    fn drop(&mut self) {
        if let Some(thread) = self.thread.get() {
            thread.unpark();
        }
    }
}

#[expect(clippy::disallowed_methods, reason = "it is the clock")]
fn tick() {
    std::thread::sleep(TICK);
}

fn run(clock: &Weak<EpochClock>) {
    let (mut idle, mut unwatched) = (0_u32, 0_u32);
    loop {
        let Some(shared) = clock.upgrade() else { return };
        shared.advance();
        idle = if shared.has_near() {
            0
        } else {
            idle.saturating_add(1)
        };
        unwatched = if shared.was_watched.swap(false, Ordering::SeqCst) {
            0
        } else {
            unwatched.saturating_add(1)
        };
        let sleep = if unwatched <= IDLE_TICKS {
            Sleep::Awake
        } else if idle <= IDLE_TICKS {
            Sleep::Light
        } else {
            Sleep::Deep
        };
        shared.sleeps(sleep);
        drop(shared);
        let Some(woke) = rest(clock, sleep) else { return };
        if woke == Woke::Called && sleep == Sleep::Deep {
            idle = 0;
        }
    }
}

/// Why the next tick comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Woke {
    /// It is due.
    Due,
    /// A call began that must not wait for that.
    Called,
}

/// Sleeps until the next tick. `None`: there will be none any more.
fn rest(clock: &Weak<EpochClock>, sleep: Sleep) -> Option<Woke> {
    let most = (sleep == Sleep::Light).then(|| Instant::now() + SELDOM);
    let mut before = None;
    loop {
        let shared = clock.upgrade()?;
        let wakes = shared.wakes_by(most).filter(|(_, last)| {
            // Woken, but not for a call with a time of its own: for one that may have come and gone.
            before.is_none_or(|before| before != *last) && !shared.is_wanted(sleep)
        });
        let Some((at, last)) = wakes else {
            shared.sleeps(Sleep::Awake);
            drop(shared);
            tick();
            return Some(Woke::Called);
        };
        drop(shared);
        before = Some(last);
        let Some(at) = at else {
            std::thread::park();
            continue;
        };
        std::thread::park_timeout(at.saturating_duration_since(Instant::now()));
        if Instant::now() >= at {
            return Some(Woke::Due);
        }
    }
}

#[cfg(test)]
mod tests {
    use wasmtime::{Config, Instance, Module, Store, UpdateDeadline};

    use super::*;

    /// `(module (func (export "run") (loop (br 0))))`
    const LOOPS: &[u8] =
        b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x07\x01\x03run\0\0\x0a\x09\x01\x07\0\x03\x40\x0c\0\x0b\x0b";

    struct Looping {
        clock: Arc<EpochClock>,
        engine: Engine,
        module: Module,
    }

    impl Looping {
        fn new() -> Self {
            let engine = Engine::new(Config::new().epoch_interruption(true)).unwrap();
            let clock = EpochClock::start().unwrap();
            clock.advances(&engine);
            let module = Module::new(&engine, LOOPS).unwrap();
            Self {
                clock,
                engine,
                module,
            }
        }

        fn until_it_sleeps(&self) {
            let began = Instant::now();
            while self.clock.sleep.load(Ordering::SeqCst) != Sleep::Deep as u8 {
                assert!(
                    began.elapsed() < Duration::from_secs(30),
                    "it does not go to sleep"
                );
                tick();
            }
        }

        /// Loops, for so many ticks. When they came.
        fn ticks(&self, ticks: usize, watch: Watch) -> Vec<Instant> {
            let mut store = Store::new(&self.engine, Vec::new());
            store.epoch_deadline_callback(move |mut store| {
                store.data_mut().push(Instant::now());
                if store.data().len() == ticks {
                    return Err(wasmtime::Error::msg("enough"));
                }
                Ok(UpdateDeadline::Continue(1))
            });
            store.set_epoch_deadline(1);
            let instance = Instance::new(&mut store, &self.module, &[]).unwrap();
            let run = instance.get_typed_func::<(), ()>(&mut store, "run").unwrap();
            let running = self.clock.running(watch);
            assert!(run.call(&mut store, ()).is_err());
            drop(running);
            store.into_data()
        }
    }

    #[test]
    fn each_kind_of_call_is_looked_at() {
        let looping = Looping::new();
        for watch in [Watch::Trusting, Watch::Close, Watch::At(Instant::now())] {
            looping.until_it_sleeps();
            assert_eq!(looping.ticks(5, watch).len(), 5);
        }
        assert_eq!(looping.clock.calls(), 0);
    }

    #[test]
    fn a_call_with_a_time_of_its_own_is_left_alone_until_then() {
        let looping = Looping::new();
        // A call that begins while the clock goes to sleep may be checked once too soon.
        let is_left_alone = (0..10).any(|_| {
            looping.until_it_sleeps();
            let due = Instant::now() + Duration::from_millis(300);
            looping.ticks(1, Watch::At(due))[0] >= due
        });
        assert!(is_left_alone);
    }

    #[test]
    fn one_that_ends_sooner_does_not_wait_for_one_that_ends_later() {
        let looping = Looping::new();
        looping.until_it_sleeps();
        let late = Instant::now() + Duration::from_secs(3_600);
        let _late = looping.clock.running(Watch::At(late));
        let began = Instant::now();
        while looping.clock.far().wakes.is_none() {
            assert!(
                began.elapsed() < Duration::from_secs(30),
                "it does not see the first"
            );
            tick();
        }
        let due = Instant::now() + Duration::from_millis(50);
        assert_eq!(looping.ticks(1, Watch::At(due)).len(), 1);
        assert_eq!(looping.clock.calls(), 1);
    }

    #[test]
    fn the_clock_does_not_wait_for_the_list_of_calls() {
        let looping = Looping::new();
        looping.until_it_sleeps();
        let held = looping.clock.far();
        assert_eq!(looping.ticks(5, Watch::Close).len(), 5);
        drop(held);
    }
}
