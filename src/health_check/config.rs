//! Which providers are checked, and where.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::heir::TlsConfig;

/// Active checks of providers, for policies with a `health_check`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct HealthChecksConfig {
    /// Whether the sidecar checks the health of providers itself. If not, no provider is ever unhealthy.
    pub enabled: bool,
    /// Addresses by provider, for health checks that name none: `openai: https://api.openai.com/health`.
    pub endpoints: BTreeMap<String, String>,
    /// Hosts that a policy may name in the address of its health check: `host`, which means the scheme's own port, or
    /// `host:port`. An address on any other host is never requested, because policies are written by tenants.
    pub allow: Vec<String>,
    /// The most checks in progress at one time; further ones wait.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_in_flight: usize,
    /// TLS towards providers; the files are read at the start.
    pub tls: TlsConfig,
}

impl Default for HealthChecksConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            endpoints: BTreeMap::new(),
            allow: Vec::new(),
            max_in_flight: 32,
            tls: TlsConfig::default(),
        }
    }
}
