//! The engines that extensions run on.
//!
//! Small modules are compiled with explicit bounds checks: their memory then never needs a system call to be made or
//! cleaned, which is what a fresh instance costs. Interpreters (JavaScript, Python) are large and compute a lot, so
//! they get guard pages, under which the same code is a third faster.
//!
//! Counting what a call computes costs a call that computes a lot a good part of its speed, so it is compiled into the code
//! of those modules only whose records set `fuel`: each kind of engine is there with it too, made for the first that asks.

use std::{
    fmt, io,
    sync::{Arc, OnceLock},
};

use sha2::{Digest, Sha256};
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig};

use super::{budget::Budget, epoch::EpochClock};

/// A module that is larger holds an interpreter.
const INTERPRETER_BYTES: usize = 1 << 20;

/// What is kept of a memory between two calls, so that the second need not ask the kernel for it.
const KEEP_RESIDENT: usize = 1 << 20;

/// Which engine a module runs on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Profile {
    /// Explicit bounds checks.
    Compact,
    /// Guard pages, and room for many parts.
    Interpreter,
    /// As `Compact`, and what a call computes is counted.
    CompactMetered,
    /// As `Interpreter`, and what a call computes is counted.
    InterpreterMetered,
}

impl Profile {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Compact,
        Self::Interpreter,
        Self::CompactMetered,
        Self::InterpreterMetered,
    ];

    /// The same, for a module whose calls have `fuel`, or have none.
    pub const fn metered(self, is_metered: bool) -> Self {
        match (self.is_interpreter(), is_metered) {
            (false, false) => Self::Compact,
            (true, false) => Self::Interpreter,
            (false, true) => Self::CompactMetered,
            (true, true) => Self::InterpreterMetered,
        }
    }

    /// Whether it is that of interpreters.
    pub const fn is_interpreter(self) -> bool {
        matches!(self, Self::Interpreter | Self::InterpreterMetered)
    }

    /// Whether what a call computes is counted.
    pub const fn is_metered(self) -> bool {
        matches!(self, Self::CompactMetered | Self::InterpreterMetered)
    }

    /// The profile of a module, by its size.
    pub fn of(module: &[u8]) -> Self {
        if module.len() > INTERPRETER_BYTES {
            Self::Interpreter
        } else {
            Self::Compact
        }
    }

    /// As the admin listener and the compile command name it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Compact => "compact",
            Self::Interpreter => "interpreter",
            Self::CompactMetered => "compact-metered",
            Self::InterpreterMetered => "interpreter-metered",
        }
    }

    /// Memory that a call may use where its record does not say, in bytes.
    pub const fn default_memory_bytes(self) -> u64 {
        if self.is_interpreter() { 64 << 20 } else { 16 << 20 }
    }

    /// Elements that a table may have where the record does not say: what the pool has room for.
    pub const fn default_table_elements(self) -> u32 {
        if self.is_interpreter() { 20_000 } else { 10_000 }
    }

    /// What decides how code is compiled. It must be the same where a module is compiled and where it is run.
    fn config(self) -> Config {
        let mut config = Config::new();
        config
            .wasm_component_model(true)
            .concurrency_support(false)
            .epoch_interruption(true)
            .consume_fuel(self.is_metered())
            .wasm_memory64(false)
            .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
        match self {
            Self::Compact | Self::CompactMetered => config
                .signals_based_traps(false)
                .memory_guard_size(0)
                .memory_reservation(COMPACT_RESERVATION)
                .memory_reservation_for_growth(0)
                .memory_may_move(false)
                .max_wasm_stack(256 << 10),
            Self::Interpreter | Self::InterpreterMetered => {
                config.memory_may_move(false).max_wasm_stack(768 << 10)
            }
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
            Self::Compact | Self::CompactMetered => pool
                .total_component_instances(instances)
                .total_core_instances(instances * 4)
                .total_memories(instances)
                .total_tables(instances * 2)
                .max_core_instances_per_component(8)
                .max_memories_per_component(1)
                .max_tables_per_component(4)
                .table_elements(self.default_table_elements() as usize)
                .max_memory_size(max_memory_bytes.min(COMPACT_RESERVATION as usize)),
            Self::Interpreter | Self::InterpreterMetered => {
                // Each takes milliseconds and megabytes: more of them at once would only wait for each other.
                let instances = instances.min(32);
                pool.total_component_instances(instances)
                    .total_core_instances(instances * 64)
                    .total_memories(instances * 4)
                    .total_tables(instances * 16)
                    .max_core_instances_per_component(64)
                    .max_memories_per_component(4)
                    .max_tables_per_component(16)
                    .table_elements(self.default_table_elements() as usize)
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
    /// wasmtime refuses the settings, or the address space is not available.
    #[error("cannot set up the {profile} engine for {instances} extensions: {reason}", profile = profile.as_str())]
    Engine {
        /// Which engine.
        profile: Profile,
        /// The size of its pool.
        instances: u32,
        /// What wasmtime reports.
        reason: String,
    },
    /// The thread of the clock cannot be started.
    #[error("cannot start the clock of extensions")]
    Thread(#[from] io::Error),
}

/// The engines. All but that for small modules, whose pools need a lot of address space, are made when there is a module to
/// run on them.
pub struct Engines {
    compact: Engine,
    others: [OnceLock<Result<Engine, EngineError>>; 3],
    instances: u32,
    max_memory_bytes: usize,
    clock: Arc<EpochClock>,
    budget: Arc<Budget>,
}

impl Engines {
    /// The engine for small modules, with a pool of so many instances, and the clock. All calls together have all the memory
    /// that there is.
    ///
    /// # Errors
    /// When the address space for the pool of small modules is not available.
    pub fn new(instances: u32, max_memory_bytes: u64) -> Result<Self, EngineError> {
        Self::within(instances, max_memory_bytes, Budget::new(u64::MAX))
    }

    /// As [`Engines::new`]; all calls together have no more memory than this budget.
    ///
    /// # Errors
    /// As those of [`Engines::new`].
    pub fn within(instances: u32, max_memory_bytes: u64, budget: Arc<Budget>) -> Result<Self, EngineError> {
        let max_memory_bytes = usize::try_from(max_memory_bytes).unwrap_or(usize::MAX);
        let compact = make(Profile::Compact, instances, max_memory_bytes)?;
        let clock = EpochClock::start()?;
        clock.advances(&compact);
        Ok(Self {
            compact,
            others: Default::default(),
            instances,
            max_memory_bytes,
            clock,
            budget,
        })
    }

    pub(in crate::extensions) fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    pub(in crate::extensions) fn engine(&self, profile: Profile) -> Result<&Engine, &EngineError> {
        let [interpreter, compact_metered, interpreter_metered] = &self.others;
        let other = match profile {
            Profile::Compact => return Ok(&self.compact),
            Profile::Interpreter => interpreter,
            Profile::CompactMetered => compact_metered,
            Profile::InterpreterMetered => interpreter_metered,
        };
        let make = || {
            let engine = make(profile, self.instances, self.max_memory_bytes)?;
            self.clock.advances(&engine);
            Ok(engine)
        };
        other.get_or_init(make).as_ref()
    }

    pub(in crate::extensions) fn clock(&self) -> &Arc<EpochClock> {
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
pub(in crate::extensions) fn compiling_engine(profile: Profile) -> Result<Engine, wasmtime::Error> {
    Engine::new(&profile.config())
}

/// Names what compiled code was made with and for. wasmtime refuses code of other settings or for another processor by
/// itself, when it is loaded.
pub(in crate::extensions) fn fingerprint(profile: Profile) -> [u8; 32] {
    let parts = [
        env!("CARGO_PKG_VERSION"),
        env!("BEAMLINE_WASMTIME_VERSION"),
        std::env::consts::ARCH,
        std::env::consts::OS,
        profile.as_str(),
    ];
    Sha256::digest(parts.join(" ")).into()
}
