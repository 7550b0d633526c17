//! Decision cases: what a policy is to decide, written down as data and tried on the real core.
//!
//! A case names a policy, what is remembered, a request, a seed and a time, and what must come of it. Steps of one case
//! share their memory, so that a retry chain or a session is a case as well.

mod compare;
mod run;

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::Deserialize;
use serde_json::{Map, Value};

pub use self::run::{Mismatch, run};
use crate::decide::{FallbackEvaluation, Scripted};

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What it shows, in a sentence.
    pub description: String,
    /// The policy itself.
    pub policy: Option<Map<String, Value>>,
    /// Or its file, as seen from the case's.
    pub policy_file: Option<PathBuf>,
    #[serde(default = "default_tenant")]
    pub tenant_id: String,
    #[serde(default = "default_policy")]
    pub policy_id: String,
    /// Unix milliseconds of the first step.
    #[serde(default = "default_time")]
    pub at: u64,
    /// 1 to 16 hex digits.
    #[serde(default = "default_seed")]
    pub seed: String,
    #[serde(default)]
    pub rules: CaseRules,
    #[serde(default)]
    pub memory: CaseMemory,
    /// What the policy's extensions answer.
    #[serde(default)]
    pub extensions: Scripted,
    /// The requests, one after the other.
    pub steps: Vec<Step>,
}

fn default_tenant() -> String {
    "acme".to_owned()
}

fn default_policy() -> String {
    "chat".to_owned()
}

/// The first second of 2025.
fn default_time() -> u64 {
    1_735_689_600_000
}

fn default_seed() -> String {
    "1".to_owned()
}

/// The process's rules, where they matter.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseRules {
    pub fallback_evaluation: Option<FallbackEvaluation>,
    pub status_classes: Option<bool>,
    pub tenant_limit: Option<CaseLimit>,
    pub global_limit: Option<CaseLimit>,
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseLimit {
    pub requests_per_second: u32,
    pub burst: u32,
}

/// What is remembered before the first step.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseMemory {
    pub sticky: Vec<CaseSession>,
    /// State by provider: `closed`, `open`, `half_open`.
    pub breakers: BTreeMap<String, String>,
    pub unhealthy: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseSession {
    /// The session's value.
    pub session: Value,
    pub provider: String,
    #[serde(default)]
    pub age_seconds: u64,
    #[serde(default = "default_ttl")]
    pub ttl_seconds: i64,
}

fn default_ttl() -> i64 {
    3_600
}

/// One request, and what must come of it.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Milliseconds since the step before.
    #[serde(default)]
    pub after_ms: u64,
    /// Another tenant than the case's.
    pub tenant_id: Option<String>,
    #[serde(default)]
    pub context: Map<String, Value>,
    pub payload: Option<Value>,
    /// A result that is taken in before the request.
    pub result: Option<CaseResult>,
    /// How often the same is asked; each time it must come to the same.
    #[serde(default = "once")]
    pub repeat: u32,
    pub want: Want,
}

fn once() -> u32 {
    1
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseResult {
    pub provider_id: String,
    pub status: String,
    pub error_code: Option<String>,
    pub latency_ms: Option<u64>,
    #[serde(default = "once")]
    pub times: u32,
}

/// What must come of a step. What is not named may be anything.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Want {
    pub provider_id: Option<String>,
    pub reason: Option<String>,
    pub priority: Option<u8>,
    /// At least these entries.
    pub metadata: Map<String, Value>,
    /// All of them, in order, as `pre normalize ok`.
    pub executed_extensions: Option<Vec<String>>,
    /// The internal name of a refusal, such as `no_provider_available`.
    pub refusal: Option<String>,
    /// The level of the explanation; default detailed.
    pub level: Option<String>,
    /// All of its steps.
    pub steps: Option<Vec<String>>,
    /// Exactly this context of the explanation.
    pub explanation_context: Option<Map<String, Value>>,
    /// At least this of its evidence.
    pub evidence: Map<String, Value>,
    /// Shares over as many seeds.
    pub distribution: Option<Distribution>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    pub runs: u64,
    pub shares: BTreeMap<String, f64>,
    pub tolerance: f64,
}

/// Why a case cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    #[error("{path}: {reason}")]
    Unreadable { path: PathBuf, reason: String },
}

/// Reads the cases of a file: one, or a list of them.
pub fn load(path: &Path) -> Result<Vec<Case>, CaseError> {
    let unreadable = |reason: String| CaseError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let cases: Result<Vec<Case>, _> = if text.lines().any(|line| line.starts_with("- ")) {
        serde_saphyr::from_str(&text)
    } else {
        serde_saphyr::from_str(&text).map(|case| vec![case])
    };
    let mut cases = cases.map_err(|error| unreadable(error.to_string()))?;
    for case in &mut cases {
        if case.steps.is_empty() {
            return Err(unreadable(format!("{:?} has no steps", case.description)));
        }
        if let Some(file) = &case.policy_file {
            let file = path.parent().unwrap_or(Path::new("")).join(file);
            let text = fs::read(&file).map_err(|error| unreadable(format!("{}: {error}", file.display())))?;
            let policy = serde_json::from_slice(&text);
            case.policy = Some(policy.map_err(|error| unreadable(format!("{}: {error}", file.display())))?);
        }
        if case.policy.is_none() {
            return Err(unreadable(format!("{:?} names no policy", case.description)));
        }
    }
    Ok(cases)
}
