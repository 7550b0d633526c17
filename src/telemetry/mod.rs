//! Logs and metrics.

pub mod decisions;
mod escape;
pub mod extensions;
mod logs;
mod metrics;

pub use logs::{LogConfig, LogFormat, Logs, chain, parse_filter};
pub use metrics::{HeirCall, Metrics, TenantMetrics};
