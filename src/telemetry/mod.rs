//! Logs, and the registration of metrics.

mod escape;
mod log_queue;
mod logs;
pub mod registry;

pub use logs::{LogConfig, LogFormat, LogMetrics, Logs, chain, parse_filter};
