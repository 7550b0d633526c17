//! Logs, and the registration of metrics.

mod escape;
mod logs;
pub mod registry;

pub use logs::{LogConfig, LogFormat, Logs, chain, parse_filter};
