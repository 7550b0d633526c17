//! Extensions, as configured.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{oci::RegistriesConfig, recording::RecordConfig, signing::SignaturesConfig};

/// How extensions are run here. The limits of one extension are in its registry record, within these.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExtensionsConfig {
    /// Runs extensions. Off, every extension that a policy names is not found.
    pub enabled: bool,
    /// What a call may take where neither the record nor the policy says.
    #[schemars(range(min = 10, max = 5_000))]
    pub timeout_ms: u32,
    /// The most memory that a record may ask for, of one call.
    #[schemars(range(min = 65_536, max = 1_073_741_824))]
    pub max_memory_bytes: u64,
    /// The most bytes that a record may let one call hand over at once.
    #[schemars(range(min = 65_536, max = 67_108_864))]
    pub max_output_bytes: u64,
    /// The memory that all calls under way may have together: of their instances, of input that waits, of answers that
    /// requests keep. Further calls fail at once.
    #[schemars(range(min = 16_777_216, max = 1_099_511_627_776_u64))]
    pub max_total_memory_bytes: u64,
    /// Calls that can be under way at the same time, of all extensions together. Memory is set aside for each.
    #[schemars(range(min = 4, max = 1_000))]
    pub max_instances: u32,
    /// Calls of extensions that take long that compute at a time, and as many of those that seldom end in time; quick ones
    /// run where the request is served.
    #[schemars(range(min = 1, max = 64))]
    pub worker_threads: u32,
    /// Calls that may wait for a slow thread, and as many for one of those that seldom end in time; further ones fail at
    /// once.
    #[schemars(range(min = 1, max = 10_000))]
    pub max_queued_calls: u32,
    /// The largest module.
    #[schemars(range(min = 1_024, max = 268_435_456))]
    pub max_module_bytes: u64,
    /// What compiling one module may take.
    #[schemars(range(min = 100, max = 600_000))]
    pub compile_timeout_ms: u64,
    /// The memory that the process which compiles one module may use.
    #[schemars(range(min = 67_108_864, max = 17_179_869_184_u64))]
    pub max_compile_memory_bytes: u64,
    /// Hosts that modules are fetched from by `https:` and `oci:`, without their ports. None: no such module is taken.
    pub module_hosts: Vec<String>,
    /// How registries are spoken to that `oci:` modules are pulled from.
    pub registries: RegistriesConfig,
    /// Who has to have signed a module before it is loaded.
    pub signatures: SignaturesConfig,
    /// Writes real calls to files, for `ext replay`.
    pub record: RecordConfig,
    /// Extensions without which `/ready` says `not_ready` after a start, until each could be called once. Their modules are
    /// compiled after the sidecar listens; policies never wait for them.
    pub required_at_start: Vec<String>,
    /// Keeps an extension that fails too often from being called for a while.
    pub breaker: ExtensionBreakerConfig,
    /// Crashes in a row (traps, exhausted memory or stack) after which an extension is quarantined for the tenant whose
    /// calls they are, breaker or not.
    #[schemars(range(min = 1, max = 1_000))]
    pub quarantine_after: u32,
    /// The first quarantine; each further one is twice as long.
    #[schemars(range(min = 10, max = 3_600_000))]
    pub quarantine_ms: u64,
    /// The longest quarantine.
    #[schemars(range(min = 10, max = 86_400_000))]
    pub max_quarantine_ms: u64,
}

/// The breaker of every extension, for each tenant.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ExtensionBreakerConfig {
    /// Whether it is asked. Successes and failures are counted all the same.
    pub enabled: bool,
    /// Failures in a row that open it.
    #[schemars(range(min = 1, max = 10_000))]
    pub failure_threshold: u32,
    /// Share of failed calls in the window that opens it, once there were `error_rate_min_requests`.
    #[schemars(range(min = 0.0, max = 1.0))]
    pub error_rate_threshold: f64,
    /// Fewest calls in the window for which the share counts.
    #[schemars(range(min = 1, max = 10_000))]
    pub error_rate_min_requests: u32,
    /// The time over which calls are counted for `error_rate_threshold`.
    #[schemars(range(min = 1, max = 3_600))]
    pub window_seconds: u32,
    /// How long it stays open before calls are tried again.
    #[schemars(range(min = 1, max = 3_600))]
    pub timeout_seconds: u32,
    /// Calls that are tried then, until one succeeds.
    #[schemars(range(min = 1, max = 1_000))]
    pub half_open_max_requests: u32,
}

impl Default for ExtensionsConfig {
    fn default() -> Self {
        Self {
            enabled: true,
            timeout_ms: 100,
            max_memory_bytes: 64 << 20,
            max_output_bytes: 4 << 20,
            max_total_memory_bytes: 512 << 20,
            max_instances: 256,
            worker_threads: 2,
            max_queued_calls: 128,
            max_module_bytes: 32 << 20,
            compile_timeout_ms: 30_000,
            max_compile_memory_bytes: 2 << 30,
            module_hosts: Vec::new(),
            registries: RegistriesConfig::default(),
            signatures: SignaturesConfig::default(),
            record: RecordConfig::default(),
            required_at_start: Vec::new(),
            breaker: ExtensionBreakerConfig::default(),
            quarantine_after: 5,
            quarantine_ms: 1_000,
            max_quarantine_ms: 300_000,
        }
    }
}

impl Default for ExtensionBreakerConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            failure_threshold: 5,
            error_rate_threshold: 0.5,
            error_rate_min_requests: 5,
            window_seconds: 60,
            timeout_seconds: 60,
            half_open_max_requests: 3,
        }
    }
}
