//! Which calls are recorded.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Real calls of extensions, written to files for `ext replay`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RecordConfig {
    /// Writes calls into `recordings` below `state_dir`. They hold what requests hold, without what the log leaves out too.
    pub enabled: bool,
    /// Ids of the extensions whose calls are recorded. None: of all.
    pub extensions: Vec<String>,
    /// Tenants whose calls are recorded. None: of all.
    pub tenants: Vec<String>,
    /// Calls that are recorded in a second, of one extension for one tenant.
    #[schemars(range(min = 1, max = 1_000))]
    pub max_per_second: u32,
    /// The size of all files together; the oldest ones are removed.
    #[schemars(range(min = 65_536, max = 17_179_869_184_u64))]
    pub max_bytes: u64,
}

impl Default for RecordConfig {
    fn default() -> Self {
        Self {
            enabled: false,
            extensions: Vec::new(),
            tenants: Vec::new(),
            max_per_second: 1,
            max_bytes: 64 << 20,
        }
    }
}
