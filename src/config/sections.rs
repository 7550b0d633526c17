//! The configuration as a whole: each section's own type, and the keys that belong to no section.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    admin::AdminConfig, decide::DecideConfig, extensions::ExtensionsConfig, health_check::HealthChecksConfig,
    heir::HeirConfig, listener::Address, listener::LimitsConfig, refresh::RefreshConfig,
    telemetry::LogConfig, write::WritesConfig,
};

/// Everything that can be configured. Every key has a default: with no file at all the sidecar runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Where the Router reaches the sidecar: an address, or a list of them. `IP:PORT` or `unix:/absolute/path`.
    pub listen: OneOrMany,
    /// Permissions of the Unix sockets in `listen`, as an octal text.
    #[schemars(regex(pattern = "^0?[0-7]{3}$"))]
    pub unix_mode: String,
    /// Lets a second sidecar listen at the same addresses, so that a successor can be started, and be ready,
    /// before this one stops.
    pub reuse_port: bool,
    /// Threads.
    pub runtime: RuntimeConfig,
    /// The admin listener.
    pub admin: AdminConfig,
    /// The policy store, and the requests to it.
    pub heir: HeirConfig,
    /// How the snapshot is kept up to date.
    pub refresh: RefreshConfig,
    /// Writes, and the journal for them.
    pub writes: WritesConfig,
    /// Decisions, and what they remember.
    pub decide: DecideConfig,
    /// Extensions: their limits and their modules.
    pub extensions: ExtensionsConfig,
    /// Limits of the listeners.
    pub limits: LimitsConfig,
    /// Active health checks of providers.
    pub health_checks: HealthChecksConfig,
    /// How the sidecar stops.
    pub shutdown: ShutdownConfig,
    /// What the metrics may cost.
    pub metrics: MetricsConfig,
    /// The log.
    pub log: LogConfig,
    /// Directory for the disk snapshot and the write journal. Empty: nothing is kept on disk.
    pub state_dir: PathBuf,
    /// Directory of policies `TENANT/POLICY.json`, watched, for policies that HEIR does not have. Empty: none.
    pub policies_dir: PathBuf,
    /// Directory of extensions: registry records `ID.json` and the modules that they name by `file:`, watched, for
    /// extensions that HEIR does not have. Empty: none.
    pub extensions_dir: PathBuf,
    /// The Router's own key: whether HEIR is used. `false` means the sidecar answers from `policies_dir` alone.
    pub heir_policy_store_enabled: Option<bool>,
    /// The Router's own key: HEIR's host. Needs `heir_policy_store_enabled`, and `heir.url` unset; beside `false` it has
    /// no effect.
    #[schemars(length(min = 1, max = 253))]
    pub heir_policy_store_host: Option<String>,
    /// The Router's own key: HEIR's port. Needs `heir_policy_store_enabled`, and `heir.url` unset; beside `false` it has
    /// no effect.
    #[schemars(range(min = 1))]
    pub heir_policy_store_port: Option<u16>,
    /// The Router's own key: the same as `heir.timeout_ms`, which wins if both are set.
    #[schemars(range(min = 1, max = 600_000))]
    pub heir_policy_store_timeout: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            listen: OneOrMany::One("127.0.0.1:8080".into()),
            unix_mode: "660".into(),
            reuse_port: false,
            runtime: RuntimeConfig::default(),
            admin: AdminConfig::default(),
            heir: HeirConfig::default(),
            refresh: RefreshConfig::default(),
            writes: WritesConfig::default(),
            decide: DecideConfig::default(),
            extensions: ExtensionsConfig::default(),
            limits: LimitsConfig::default(),
            health_checks: HealthChecksConfig::default(),
            shutdown: ShutdownConfig::default(),
            metrics: MetricsConfig::default(),
            log: LogConfig::default(),
            state_dir: PathBuf::new(),
            policies_dir: PathBuf::new(),
            extensions_dir: PathBuf::new(),
            heir_policy_store_enabled: None,
            heir_policy_store_host: None,
            heir_policy_store_port: None,
            heir_policy_store_timeout: None,
        }
    }
}

/// One text or a list of texts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(untagged)]
pub enum OneOrMany {
    /// A single text.
    One(String),
    /// A list of texts.
    Many(Vec<String>),
}

impl OneOrMany {
    /// The texts, one or many.
    pub fn as_slice(&self) -> &[String] {
        match self {
            Self::One(text) => std::slice::from_ref(text),
            Self::Many(texts) => texts,
        }
    }
}

/// Threads.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RuntimeConfig {
    /// Threads that answer the Router. One serves over 100 000 lookups a second; a second one pays off only if one
    /// is busy for more than a third of its time.
    #[schemars(range(min = 1, max = 64))]
    pub workers: usize,
    /// A thread that answers the Router and has not run for this long is stuck: `/live` and `/ready` fail.
    #[schemars(range(min = 1_000, max = 600_000))]
    pub stuck_after_ms: u64,
    /// A start that does not get on for this long hangs, on a disk that does not answer, say: `run --supervised` begins
    /// another.
    #[schemars(range(min = 1_000, max = 3_600_000))]
    pub start_timeout_ms: u64,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self {
            workers: 1,
            stuck_after_ms: 5_000,
            start_timeout_ms: 60_000,
        }
    }
}

/// How the sidecar stops after SIGTERM.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ShutdownConfig {
    /// Keep serving for this long while `/ready` already fails and every answer carries `Connection: close`, so
    /// that clients move elsewhere by themselves.
    #[schemars(range(max = 600_000))]
    pub lame_duck_ms: u64,
    /// Wait this long for requests in progress, then end in any case.
    #[schemars(range(min = 1, max = 600_000))]
    pub drain_timeout_ms: u64,
}

impl Default for ShutdownConfig {
    fn default() -> Self {
        Self {
            lame_duck_ms: 1_000,
            drain_timeout_ms: 10_000,
        }
    }
}

/// What the metrics may cost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct MetricsConfig {
    /// Tenants that get a `tenant_id` label of their own; all others share the label `other`.
    #[schemars(range(max = 10_000))]
    pub max_tenant_labels: usize,
}

impl Default for MetricsConfig {
    fn default() -> Self {
        Self {
            max_tenant_labels: 100,
        }
    }
}

impl Config {
    /// The addresses to listen at; an address that is not valid is left out, which the check reports.
    pub fn listen_addresses(&self) -> Vec<Address> {
        self.listen
            .as_slice()
            .iter()
            .filter_map(|text| text.parse().ok())
            .collect()
    }

    /// `unix_mode` as a number.
    pub fn unix_mode_bits(&self) -> u32 {
        u32::from_str_radix(&self.unix_mode, 8).unwrap_or(0o660)
    }

    /// HEIR's base URL; `None` if the sidecar works without HEIR.
    pub fn heir_url(&self) -> Option<String> {
        match (&self.heir.url, self.heir_policy_store_enabled) {
            (Some(url), _) => Some(url.clone()),
            (None, Some(false)) => None,
            (None, Some(true)) => {
                let host = self.heir_policy_store_host.as_deref().unwrap_or("localhost");
                Some(format!(
                    "http://{host}:{}",
                    self.heir_policy_store_port.unwrap_or(8080)
                ))
            }
            (None, None) => Some("http://127.0.0.1:8090".into()),
        }
    }

    /// Milliseconds that one request to HEIR may take.
    pub fn heir_timeout_ms(&self) -> u64 {
        self.heir
            .timeout_ms
            .or(self.heir_policy_store_timeout)
            .unwrap_or(5_000)
    }
}
