//! Puts everything together. Building may fail: it reads, connects what can be connected, and binds every socket.
//! Running does not fail: it serves until told to stop, and then finishes what was begun.
//!
//! ```text
//!  state_dir · directories · upstream · memory ─► (part, its named tasks) ─► sidecar: build ─► run ─► shut down
//!  serving: the listeners      reload, watch: changes of files      upkeep: sweeping, missing modules
//! ```

mod descriptors;
mod directories;
mod error;
mod memory;
mod memory_limit;
mod metrics;
mod own_runtime;
mod reload;
mod report;
mod serving;
mod sidecar;
mod state_dir;
mod tasks;
mod upkeep;
mod upstream;
mod watch;

pub(crate) use descriptors::raise_limit;
pub use error::BuildError;
pub(crate) use own_runtime::KEEP_ALIVE;
pub use reload::ConfigSource;
pub use serving::Handover;
pub use sidecar::{App, Shutdown};
