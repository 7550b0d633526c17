//! Puts everything together. Building may fail: it reads, connects what can be connected, and binds every socket.
//! Running does not fail: it serves until told to stop, and then finishes what was begun.
//!
//! ```text
//!  state_dir · directories · upstream · memory ─► (part, its named tasks) ─► sidecar: build ─► run ─► shut down
//!  serving: the listeners      reload, watch: changes of files      upkeep: sweeping, missing modules
//! ```

mod directories;
mod error;
mod memory;
mod metrics;
mod own_runtime;
mod reload;
mod serving;
mod sidecar;
mod state_dir;
mod tasks;
mod upkeep;
mod upstream;
mod watch;

pub use error::BuildError;
pub use reload::ConfigSource;
pub use sidecar::{App, Shutdown};
