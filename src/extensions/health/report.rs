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
    /// The latest time until which a tenant may not call it because of crashes: Unix milliseconds.
    pub quarantined_until: Option<u64>,
    /// Tenants that may not call it now, because of their own calls: at most 100.
    pub blocked_tenants: Vec<BlockedTenant>,
    /// Each version and instance; the rest of this report is about all of them together.
    pub versions: Vec<VersionHealth>,
}

/// A tenant that may not call a version of an extension, because of its own calls.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct BlockedTenant {
    /// The tenant.
    pub tenant_id: String,
    /// The version.
    pub version: String,
    /// The instance, where the record names any.
    pub instance_id: Option<String>,
    /// The state of its breaker: `closed`, `open` or `half_open`.
    pub breaker: &'static str,
    /// Unix milliseconds. `null`: it is the breaker that blocks.
    pub quarantined_until: Option<u64>,
}

/// The health of one version of an extension, or of one instance of it.
#[derive(Debug, Clone, Serialize, schemars::JsonSchema)]
pub struct VersionHealth {
    /// The version.
    pub version: String,
    /// The instance, where the record names any.
    pub instance_id: Option<String>,
    /// Calls that succeeded.
    pub successes: u64,
    /// Calls that failed.
    pub failures: u64,
    /// The 99th percentile of the last five minutes, in milliseconds.
    pub p99_latency_ms: f64,
    /// Where its calls run: `fast`, `slow` or `idle`.
    pub lane: &'static str,
    /// Whether it is quarantined for all tenants: until when, in Unix milliseconds.
    pub quarantined_until: Option<u64>,
}

/// The breaker of an extension, as the platform reports it: that of the tenant that fares worst.
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
    /// Whether the extension is in quarantine, for a tenant at least.
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
