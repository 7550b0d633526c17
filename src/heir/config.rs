//! How HEIR is reached.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The central policy store.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HeirConfig {
    /// HEIR's base URL, `http` or `https`. Unset: `http://127.0.0.1:8090`, where `beamline-sidecar store` listens,
    /// unless the `heir_policy_store_*` keys say otherwise.
    pub url: Option<String>,
    /// Milliseconds that one request may take; 5000 unless `heir_policy_store_timeout` says otherwise.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_ms: Option<u64>,
    /// Tenants to ask for where HEIR can only list one tenant at a time. Others are added when they are first seen.
    pub tenants: Vec<String>,
    /// File with the bearer token for HEIR; read again when it changes.
    pub token_file: PathBuf,
    /// TLS of the connections to HEIR.
    pub tls: TlsConfig,
    /// Limits of the connection pool.
    pub pool: PoolConfig,
    /// Attempts and the pauses between them.
    pub retry: RetryConfig,
    /// The circuit breaker for HEIR.
    pub breaker: BreakerConfig,
    /// How often `/health` is asked.
    #[schemars(range(min = 100, max = 3_600_000))]
    pub health_interval_ms: u64,
    /// Bytes that one answer with a whole snapshot or list may have.
    #[schemars(range(min = 1_048_576))]
    pub max_answer_bytes: u64,
}

impl Default for HeirConfig {
    fn default() -> Self {
        Self {
            url: None,
            timeout_ms: None,
            tenants: Vec::new(),
            token_file: PathBuf::new(),
            tls: TlsConfig::default(),
            pool: PoolConfig::default(),
            retry: RetryConfig::default(),
            breaker: BreakerConfig::default(),
            health_interval_ms: 30_000,
            max_answer_bytes: 1 << 30,
        }
    }
}

/// TLS towards HEIR. The files are read again when their content changes; a file that cannot be used leaves the
/// connection settings as they were.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct TlsConfig {
    /// PEM file with the authorities to trust. Empty: the system's.
    pub ca_file: PathBuf,
    /// PEM file with the client certificate and its chain.
    pub cert_file: PathBuf,
    /// PEM file with the client certificate's key.
    pub key_file: PathBuf,
}

/// Connections to HEIR.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PoolConfig {
    /// Requests to HEIR at one time. No tenant's lookups and writes together may hold more than are free.
    #[schemars(range(min = 2, max = 10_000))]
    pub max_requests: usize,
    /// Idle connections that are kept.
    #[schemars(range(max = 10_000))]
    pub max_idle: usize,
}

impl Default for PoolConfig {
    fn default() -> Self {
        Self {
            max_requests: 50,
            max_idle: 5,
        }
    }
}

/// Repeating a read that failed. Writes are never repeated here: the journal does that.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetryConfig {
    /// Attempts in all; 1 means no retry.
    #[schemars(range(min = 1, max = 20))]
    pub max_attempts: u32,
    /// Longest pause before the second attempt; the pause taken is anything from zero up to it.
    #[schemars(range(min = 1, max = 60_000))]
    pub initial_ms: u64,
    /// Factor by which the longest pause grows.
    #[schemars(range(min = 1.0, max = 10.0))]
    pub factor: f64,
    /// The longest pause grows no further than this.
    #[schemars(range(min = 1, max = 600_000))]
    pub max_ms: u64,
}

impl Default for RetryConfig {
    fn default() -> Self {
        Self {
            max_attempts: 3,
            initial_ms: 100,
            factor: 2.0,
            max_ms: 5_000,
        }
    }
}

/// When HEIR is left alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BreakerConfig {
    /// Failures in a row that open it.
    #[schemars(range(min = 1, max = 1_000))]
    pub failure_threshold: u32,
    /// How long it stays open.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub open_ms: u64,
    /// Successes in a row that close it again.
    #[schemars(range(min = 1, max = 1_000))]
    pub success_threshold: u32,
}

impl Default for BreakerConfig {
    fn default() -> Self {
        Self {
            failure_threshold: 5,
            open_ms: 60_000,
            success_threshold: 2,
        }
    }
}
