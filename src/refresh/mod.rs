//! Keeps the snapshot like HEIR: detects what HEIR can do, asks for what is new, checks all of it, activates it at
//! once or not at all, and records how old the result is.
//!
//! ```text
//!  runner ─► levels ─► changes or snapshot (stream) ─┐
//!                   ├► lists ─► list ────────────────┼─► refresher ─► snapshot ◄─► disk
//!                   └► singles ─► fetch ─────────────┘
//!  directory, extensions: what this machine adds
//! ```

mod config;
mod detected;
mod directory;
mod disk;
mod extensions;
mod fetch;
mod levels;
mod list;
mod lists;
mod metrics;
mod outcome;
mod partly;
mod problem;
mod refresher;
mod runner;
mod singles;
mod stream;

pub use config::RefreshConfig;
pub use directory::{BadFile, Directory};
pub use disk::{DiskSnapshot, LoadedFromDisk};
pub use extensions::{ask_extensions, reload_extensions, supply_extensions};
pub use fetch::{FetchOutcome, Fetcher};
pub(crate) use fetch::{Retry, fetch_policy};
pub use metrics::RefreshMetrics;
pub use outcome::{Outcome, RefreshError, RefreshState, Restored, Status};
pub use refresher::Refresher;
