//! The clock that ends calls: it advances the engines' epochs, at which compiled code looks in every loop and function.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use wasmtime::{Engine, EngineWeak};

/// How often a running call is looked at.
const TICK: Duration = Duration::from_millis(1);
/// How often, where only such run that can be trusted to be quick: each tick takes a processor from somebody.
const TRUSTING_TICK: Duration = Duration::from_millis(10);
/// Ticks without a call after which the clock stops, and without one that is watched after which its ticks become rare:
/// to wake it is dearer than to let it tick.
const IDLE_TICKS: u32 = 100;

/// Advances the engines' epochs while calls are under way, and sleeps otherwise.
pub(super) struct Clock {
    running: AtomicUsize,
    /// Those of them that may take long.
    watched: AtomicUsize,
    /// Whether there was one that was looked at closely since the last tick.
    was_watched: AtomicBool,
    /// A call was under way at the last tick, and is to be looked at again soon.
    look_again: AtomicBool,
    sleep: AtomicU8,
    thread: OnceLock<Thread>,
    engines: Mutex<Vec<EngineWeak>>,
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

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("running", &self.running)
            .field("watched", &self.watched)
            .field("sleep", &self.sleep)
            .finish_non_exhaustive()
    }
}

/// How a call is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Watch {
    /// Seldom: it is trusted to be quick.
    Trusting,
    /// Each millisecond, and there will be more like it soon: to wake the clock for each is dearer than to let it tick.
    Close,
    /// Each millisecond while it runs, on a thread of its own.
    Long,
}

/// Keeps the clock going.
#[derive(Debug)]
pub(super) struct Running<'a> {
    clock: &'a Clock,
    watch: Watch,
}

impl Clock {
    pub(super) fn start() -> io::Result<Arc<Self>> {
        let clock = Arc::new(Self {
            running: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            was_watched: AtomicBool::new(false),
            look_again: AtomicBool::new(false),
            sleep: AtomicU8::new(Sleep::Awake as u8),
            thread: OnceLock::new(),
            engines: Mutex::default(),
        });
        let weak = Arc::downgrade(&clock);
        let handle = std::thread::Builder::new()
            .name("extension-clock".into())
            .spawn(move || run(&weak))?;
        // Read only by those who come later, and then it is set.
        let _once = clock.thread.set(handle.thread().clone());
        Ok(clock)
    }

    /// Takes on an engine. It is not kept alive by this.
    pub(super) fn advances(&self, engine: &Engine) {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push(engine.weak());
    }

    fn advance(&self) {
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        for engine in engines.iter().filter_map(EngineWeak::upgrade) {
            engine.increment_epoch();
        }
    }

    /// Call before the first instruction; the clock goes for as long as the answer lives.
    pub(super) fn running(&self, watch: Watch) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if watch != Watch::Trusting {
            self.watched.fetch_add(1, Ordering::SeqCst);
        }
        if watch == Watch::Close && !self.was_watched.load(Ordering::SeqCst) {
            self.was_watched.store(true, Ordering::SeqCst);
        }
        self.wake_from(match watch {
            Watch::Trusting => Sleep::Deep,
            Watch::Close | Watch::Long => Sleep::Light,
        });
        Running { clock: self, watch }
    }

    /// Looks at a call that is under way once more, and soon.
    pub(super) fn look_again(&self) {
        self.look_again.store(true, Ordering::SeqCst);
        self.wake_from(Sleep::Light);
    }

    /// From this sleep or a deeper one.
    fn wake_from(&self, sleep: Sleep) {
        if self.sleep.load(Ordering::SeqCst) >= sleep as u8
            && let Some(thread) = self.thread.get()
        {
            thread.unpark();
        }
    }

    pub(super) fn calls(&self) -> usize {
        self.running.load(Ordering::Relaxed)
    }

    fn has_calls(&self) -> bool {
        self.running.load(Ordering::SeqCst) > 0
    }

    fn has_watched(&self) -> bool {
        self.watched.load(Ordering::SeqCst) > 0 || self.was_watched.load(Ordering::SeqCst)
    }

    /// A call that begins now sees how the clock sleeps, or is seen by whoever asks [`Self::is_wanted`] next: both sides
    /// write before they read.
    fn sleeps(&self, sleep: Sleep) {
        self.sleep.store(sleep as u8, Ordering::SeqCst);
    }

    /// Whether something is under way for which it must not sleep so.
    fn is_wanted(&self, sleep: Sleep) -> bool {
        match sleep {
            Sleep::Awake => true,
            Sleep::Light => self.has_watched() || self.look_again.load(Ordering::SeqCst),
            Sleep::Deep => self.has_calls(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.clock.running.fetch_sub(1, Ordering::SeqCst);
        if self.watch != Watch::Trusting {
            self.clock.watched.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Drop for Clock {
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

fn run(clock: &Weak<Clock>) {
    let (mut idle, mut unwatched) = (0_u32, 0_u32);
    loop {
        let Some(shared) = clock.upgrade() else { return };
        shared.advance();
        idle = if shared.has_calls() {
            0
        } else {
            idle.saturating_add(1)
        };
        let was_watched = shared.was_watched.swap(false, Ordering::SeqCst);
        unwatched = if was_watched {
            0
        } else {
            unwatched.saturating_add(1)
        };
        let sleep = if shared.look_again.swap(false, Ordering::SeqCst) || unwatched <= IDLE_TICKS {
            Sleep::Awake
        } else if idle <= IDLE_TICKS {
            Sleep::Light
        } else {
            Sleep::Deep
        };
        shared.sleeps(sleep);
        let is_wanted = shared.is_wanted(sleep);
        drop(shared);
        match sleep {
            Sleep::Light if !is_wanted => std::thread::park_timeout(TRUSTING_TICK),
            Sleep::Deep if !is_wanted => std::thread::park(),
            _ => {}
        }
        let Some(shared) = clock.upgrade() else { return };
        // After a light sleep to its end the tick is due; who ended a sleep wants it a little later.
        let is_due = sleep == Sleep::Light && !shared.is_wanted(sleep);
        shared.sleeps(Sleep::Awake);
        drop(shared);
        if sleep == Sleep::Deep {
            idle = 0;
        }
        if !is_due {
            tick();
        }
    }
}
