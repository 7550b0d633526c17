//! The engines that extensions run on, and the clock that ends calls.
//!
//! Small modules are compiled with explicit bounds checks: their memory then never needs a system call to be made or
//! cleaned, which is what a fresh instance costs. Interpreters (JavaScript, Python) are large and compute a lot, so
//! they get guard pages, under which the same code is a third faster.

use std::{
    fmt, io,
    sync::{
        Arc, Mutex, OnceLock, PoisonError, Weak,
        atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering},
    },
    thread::Thread,
    time::Duration,
};

use sha2::{Digest, Sha256};
use wasmtime::{Config, Enabled, Engine, EngineWeak, InstanceAllocationStrategy, PoolingAllocationConfig};

/// How often a running call is looked at.
const TICK: Duration = Duration::from_millis(1);
/// How often, where only such run that can be trusted to be quick: each tick takes a processor from somebody.
const TRUSTING_TICK: Duration = Duration::from_millis(10);
/// Ticks without a call after which the clock stops, and without one that is watched after which its ticks become rare:
/// to wake it is dearer than to let it tick.
const IDLE_TICKS: u32 = 100;

/// A module that is larger holds an interpreter.
const INTERPRETER_BYTES: usize = 1 << 20;

/// What is kept of a memory between two calls, so that the second need not ask the kernel for it.
const KEEP_RESIDENT: usize = 1 << 20;

/// Which engine a module runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// Explicit bounds checks.
    Compact,
    /// Guard pages, and room for many parts.
    Interpreter,
}

impl Profile {
    pub fn of(module: &[u8]) -> Self {
        if module.len() > INTERPRETER_BYTES {
            Self::Interpreter
        } else {
            Self::Compact
        }
    }

    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Interpreter => "interpreter",
        }
    }

    /// Memory that a call may use where its record does not say, in bytes.
    pub const fn default_memory_bytes(self) -> u64 {
        match self {
            Self::Compact => 16 << 20,
            Self::Interpreter => 64 << 20,
        }
    }

    /// What decides how code is compiled. It must be the same where a module is compiled and where it is run.
    fn config(self) -> Config {
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .concurrency_support(false)
            .epoch_interruption(true)
            .wasm_memory64(false)
            .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
        match self {
            Self::Compact => config
                .signals_based_traps(false)
                .memory_guard_size(0)
                .memory_reservation(COMPACT_RESERVATION)
                .memory_reservation_for_growth(0)
                .memory_may_move(false)
                .max_wasm_stack(256 << 10),
            Self::Interpreter => config.memory_may_move(false).max_wasm_stack(768 << 10),
        };
        config
    }

    fn pool(self, instances: u32, max_memory_bytes: usize) -> PoolingAllocationConfig {
        let mut pool = PoolingAllocationConfig::new();
        // A warm place keeps what its last call touched, and the code of its module, even one that was exchanged.
        pool.linear_memory_keep_resident(KEEP_RESIDENT)
            .table_keep_resident(64 << 10)
            .max_unused_warm_slots(instances.div_ceil(8))
            .pagemap_scan(Enabled::Auto);
        match self {
            Self::Compact => pool
                .total_component_instances(instances)
                .total_core_instances(instances * 4)
                .total_memories(instances)
                .total_tables(instances * 2)
                .max_core_instances_per_component(8)
                .max_memories_per_component(1)
                .max_tables_per_component(4)
                .table_elements(10_000)
                .max_memory_size(max_memory_bytes.min(COMPACT_RESERVATION as usize)),
            Self::Interpreter => {
                // Each takes milliseconds and megabytes: more of them at once would only wait for each other.
                let instances = instances.min(32);
                pool.total_component_instances(instances)
                    .total_core_instances(instances * 64)
                    .total_memories(instances * 4)
                    .total_tables(instances * 16)
                    .max_core_instances_per_component(64)
                    .max_memories_per_component(4)
                    .max_tables_per_component(16)
                    .table_elements(20_000)
                    .max_component_instance_size(4 << 20)
                    .max_memory_size(max_memory_bytes)
            }
        };
        pool
    }
}

/// Address space for one small module's memory. It is part of the compiled code, so it is not configured.
const COMPACT_RESERVATION: u64 = 64 << 20;

/// Why the engines cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("cannot set up the {profile} engine for {instances} extensions: {reason}", profile = profile.as_str())]
    Engine {
        profile: Profile,
        instances: u32,
        reason: String,
    },
    #[error("cannot start the clock of extensions")]
    Thread(#[from] io::Error),
}

/// Both engines. That for interpreters, whose pool needs a lot of address space, is made when there is one to run.
pub struct Engines {
    compact: Engine,
    interpreter: OnceLock<Result<Engine, EngineError>>,
    instances: u32,
    max_memory_bytes: usize,
    clock: Arc<Clock>,
}

impl Engines {
    /// # Errors
    /// When the address space for the pool of small modules cannot be had.
    pub fn new(instances: u32, max_memory_bytes: u64) -> Result<Self, EngineError> {
        let max_memory_bytes = usize::try_from(max_memory_bytes).unwrap_or(usize::MAX);
        let compact = make(Profile::Compact, instances, max_memory_bytes)?;
        let clock = Clock::start()?;
        clock.advances(&compact);
        Ok(Self {
            compact,
            interpreter: OnceLock::new(),
            instances,
            max_memory_bytes,
            clock,
        })
    }

    pub(super) fn engine(&self, profile: Profile) -> Result<&Engine, &EngineError> {
        match profile {
            Profile::Compact => Ok(&self.compact),
            Profile::Interpreter => {
                let make = || {
                    let engine = make(profile, self.instances, self.max_memory_bytes)?;
                    self.clock.advances(&engine);
                    Ok(engine)
                };
                self.interpreter.get_or_init(make).as_ref()
            }
        }
    }

    pub(super) fn clock(&self) -> &Arc<Clock> {
        &self.clock
    }
}

fn make(profile: Profile, instances: u32, max_memory_bytes: usize) -> Result<Engine, EngineError> {
    let mut config = profile.config();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(
        profile.pool(instances, max_memory_bytes),
    ));
    Engine::new(&config).map_err(|error| EngineError::Engine {
        profile,
        instances,
        reason: format!("{error:#}"),
    })
}

impl fmt::Debug for Engines {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Engines").finish_non_exhaustive()
    }
}

/// An engine that compiles and runs nothing.
#[cfg(feature = "compiler")]
pub(super) fn compiling_engine(profile: Profile) -> Result<Engine, wasmtime::Error> {
    Engine::new(&profile.config())
}

/// Names what compiled code was made with and for. wasmtime refuses code of other settings or for another processor by
/// itself, when it is loaded.
pub(super) fn fingerprint(profile: Profile) -> [u8; 32] {
    let parts = [
        env!("CARGO_PKG_VERSION"),
        env!("BEAMLINE_WASMTIME_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        profile.as_str(),
    ];
    Sha256::digest(parts.join(" ")).into()
}

/// Advances the engines' epochs while calls are under way, and sleeps otherwise.
pub(super) struct Clock {
    running: AtomicUsize,
    /// Those of them that may take long.
    watched: AtomicUsize,
    /// Whether there were such since the last tick.
    was_watched: AtomicBool,
    /// A call was under way at the last tick, and is to be looked at again soon.
    look_again: AtomicBool,
    sleep: AtomicU8,
    thread: OnceLock<Thread>,
    engines: Mutex<Vec<EngineWeak>>,
}

/// The next tick comes soon, by itself.
const AWAKE: u8 = 0;
/// It comes late, unless a call that is watched asks for it.
const LIGHT: u8 = 1;
/// It comes when a call asks for it.
const DEEP: u8 = 2;

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clock")
            .field("running", &self.running)
            .field("watched", &self.watched)
            .field("sleep", &self.sleep)
            .finish_non_exhaustive()
    }
}

/// Keeps the clock going.
#[derive(Debug)]
pub(super) struct Running<'a> {
    clock: &'a Clock,
    watched: bool,
}

impl Clock {
    fn start() -> io::Result<Arc<Self>> {
        let clock = Arc::new(Self {
            running: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            was_watched: AtomicBool::new(false),
            look_again: AtomicBool::new(false),
            sleep: AtomicU8::new(AWAKE),
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
    fn advances(&self, engine: &Engine) {
        let mut engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        engines.push(engine.weak());
    }

    fn advance(&self) {
        let engines = self.engines.lock().unwrap_or_else(PoisonError::into_inner);
        for engine in engines.iter().filter_map(EngineWeak::upgrade) {
            engine.increment_epoch();
        }
    }

    /// Call before the first instruction; the clock goes for as long as the answer lives. A call that is not watched is
    /// one that is trusted to be quick: it is noticed later that it is not.
    pub(super) fn running(&self, watched: bool) -> Running<'_> {
        self.running.fetch_add(1, Ordering::SeqCst);
        if watched {
            self.watched.fetch_add(1, Ordering::SeqCst);
            if !self.was_watched.load(Ordering::SeqCst) {
                self.was_watched.store(true, Ordering::SeqCst);
            }
        }
        self.wake_from(if watched { LIGHT } else { DEEP });
        Running { clock: self, watched }
    }

    /// Looks at a call that is under way once more, and soon.
    pub(super) fn look_again(&self) {
        self.look_again.store(true, Ordering::SeqCst);
        self.wake_from(LIGHT);
    }

    /// From this sleep or a deeper one.
    fn wake_from(&self, sleep: u8) {
        if self.sleep.load(Ordering::SeqCst) >= sleep
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

    /// From now on it sleeps so; says whether a call wants a tick sooner.
    fn is_wanted(&self, sleep: u8) -> bool {
        // A call that begins now sees how the clock sleeps, or is seen here: both sides write before they read.
        self.sleep.store(sleep, Ordering::SeqCst);
        match sleep {
            AWAKE => true,
            LIGHT => self.has_watched() || self.look_again.load(Ordering::SeqCst),
            _ => self.has_calls(),
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.clock.running.fetch_sub(1, Ordering::SeqCst);
        if self.watched {
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
    let (mut idle, mut unwatched) = (0, 0);
    loop {
        let Some(shared) = clock.upgrade() else { return };
        shared.advance();
        idle = if shared.has_calls() { 0 } else { idle + 1 };
        unwatched = if shared.has_watched() { 0 } else { unwatched + 1 };
        shared.was_watched.store(false, Ordering::SeqCst);
        let sleep = if shared.look_again.swap(false, Ordering::SeqCst) || unwatched <= IDLE_TICKS {
            AWAKE
        } else if idle <= IDLE_TICKS {
            LIGHT
        } else {
            DEEP
        };
        let wanted = shared.is_wanted(sleep);
        drop(shared);
        match sleep {
            _ if wanted => {}
            LIGHT => std::thread::park_timeout(TRUSTING_TICK),
            _ => std::thread::park(),
        }
        let Some(shared) = clock.upgrade() else { return };
        // After a light sleep to its end the tick is due; who ended a sleep wants it a little later.
        let is_due = sleep == LIGHT && !shared.is_wanted(LIGHT);
        shared.sleep.store(AWAKE, Ordering::SeqCst);
        drop(shared);
        if sleep == DEEP {
            idle = 0;
        }
        if !is_due {
            tick();
        }
    }
}
