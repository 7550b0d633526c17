//! What becomes of writes, as an operator configures it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of a write while HEIR is away.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum WhenHeirDown {
    /// It is kept in the journal, applied here, and made in HEIR when that is back.
    Queue,
    /// It is refused with 503 `heir_unavailable`.
    Reject,
}

/// Writes while HEIR is away.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct WritesConfig {
    /// Unset: `queue` where there is a `state_dir`, else `reject`.
    pub when_heir_down: Option<WhenHeirDown>,
    /// Most writes that wait for HEIR or for an operator; further ones are refused with 503 `journal_unavailable`.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_queued: usize,
    /// Most bytes on the disk of the writes that wait; further ones are refused with 503 `journal_unavailable`.
    #[schemars(range(min = 65_536, max = 1_099_511_627_776_u64))]
    pub max_queued_bytes: u64,
    /// Attempts of one write that HEIR fails on while it is healthy, or refuses for reasons that pass (such as 401, 403,
    /// 404, 408), before the write is left to an operator. The pauses between them grow to a minute.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_attempts: u32,
    /// What a policy is held to when it is written.
    pub validate: Validate,
}

/// What is demanded of a new policy.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Validate {
    /// No mistake in the policy language; each is named in the refusal.
    Strict,
    /// One JSON object without ambiguity, and nothing more.
    Lenient,
}

impl Default for WritesConfig {
    fn default() -> Self {
        Self {
            when_heir_down: None,
            max_queued: 10_000,
            max_queued_bytes: 256 << 20,
            max_attempts: 60,
            validate: Validate::Strict,
        }
    }
}
