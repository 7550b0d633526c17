//! Keeps the snapshot like HEIR: detects what HEIR can do, asks for what is new, checks all of it, activates it at
//! once or not at all, and tells everyone how old the result is.

mod config;
mod directory;
mod disk;
mod fetch;
mod levels;
mod list;
mod metrics;
mod runner;
mod stream;

pub use config::RefreshConfig;
pub use directory::Directory;
pub use disk::{DiskSnapshot, LoadedFromDisk};
pub use fetch::{FetchOutcome, Fetcher};
pub(crate) use fetch::{Retry, fetch_policy};
pub use metrics::RefreshMetrics;
pub(crate) use runner::unix_ms;
pub use runner::{Outcome, RefreshError, RefreshState, Refresher, Restored, Status};
