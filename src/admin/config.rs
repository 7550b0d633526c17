//! The section `admin` of the configuration.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct AdminConfig {
    /// Where `/live`, `/ready`, `/metrics` and `/admin/*` are: `IP:PORT` or `unix:/absolute/path`.
    pub listen: String,
    /// File with the bearer token for `/admin/*`; read again when it changes. Empty: `/admin/*` is for clients on
    /// this machine only.
    pub token_file: PathBuf,
}

impl Default for AdminConfig {
    fn default() -> Self {
        Self {
            listen: "0.0.0.0:9901".into(),
            token_file: PathBuf::new(),
        }
    }
}
