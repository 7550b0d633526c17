//! What an operator sees of an extension's health.

use serde::Serialize;

use crate::extensions::sandbox::CrashReport;

/// The health of an extension, as the platform reports it.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ExtensionHealth")]
pub struct HealthReport {
    /// Its id.
    pub extension_id: String,
    /// `healthy`, `degraded` or `unhealthy`, by the success rate.
    pub status: &'static str,
    /// The share of successful calls; 1 before the first.
    pub success_rate: f64,
    /// Calls that succeeded since the process began.
    pub successes: u64,
    /// Calls that failed since the process began.
    pub failures: u64,
    /// The mean of the last five minutes, in milliseconds.
    pub avg_latency_ms: f64,
    /// The median of the last five minutes, in milliseconds.
    pub p50_latency_ms: f64,
    /// The 95th percentile of the last five minutes, in milliseconds.
    pub p95_latency_ms: f64,
    /// The 99th percentile of the last five minutes, in milliseconds.
    pub p99_latency_ms: f64,
    /// Unix milliseconds.
    pub last_success: Option<u64>,
    /// Unix milliseconds.
    pub last_failure: Option<u64>,
    /// Where its calls run: `fast`, `slow` or `idle`.
    pub lane: &'static str,
    /// Calls that are running.
    pub running: u32,
    /// The most linear memory that a call had.
    pub peak_memory_bytes: u64,
    /// Unix milliseconds.
    pub quarantined_until: Option<u64>,
}

/// The breaker of an extension, as the platform reports it.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
#[schemars(rename = "ExtensionBreaker")]
pub struct BreakerReport {
    /// The id of the extension.
    pub extension_id: String,
    /// `closed`, `open` or `half_open`.
    pub state: &'static str,
    /// Unix milliseconds.
    pub opened_at: Option<u64>,
    /// Failures in a row.
    pub failure_count: u32,
    /// The share of failed calls in the window.
    pub error_rate: f64,
    /// Whether the extension is in quarantine.
    pub quarantined: bool,
}

/// A crash.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct LastTrap {
    /// When it happened: Unix milliseconds.
    pub at_unix_ms: u64,
    /// The tenant of the call.
    pub tenant_id: String,
    /// The policy of the call.
    pub policy_id: String,
    /// What happened, and where.
    #[serde(flatten)]
    pub report: CrashReport,
}
