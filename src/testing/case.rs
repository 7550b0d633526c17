//! What a decision case is, and how its file is read.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use crate::{
    decide::{FallbackEvaluation, Scripted, Seed, Timestamp, memory::State},
    intake::DecideRequest,
    policy::{DetailLevel, PolicyId, RoutingPolicy, TenantId},
    yaml,
};

/// One case.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    /// What the case shows, in one sentence.
    pub description: String,
    /// The policy itself.
    pub policy: Option<Map<String, Value>>,
    /// Or its file, relative to the case's.
    pub policy_file: Option<PathBuf>,
    /// The tenant whose requests these are.
    #[serde(default = "default_tenant")]
    pub tenant_id: String,
    /// The id that the policy has.
    #[serde(default = "default_policy")]
    pub policy_id: String,
    /// The time of the first step: Unix milliseconds, or a time such as `2025-01-31T08:30:00Z`.
    #[serde(default = "default_time", deserialize_with = "moment")]
    pub at: Timestamp,
    /// 1 to 16 hex digits.
    #[serde(default = "default_seed", deserialize_with = "seed")]
    pub seed: Seed,
    /// The process's rules.
    #[serde(default)]
    pub rules: CaseRules,
    /// What is remembered before the first step.
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
fn default_time() -> Timestamp {
    Timestamp::from_unix_ms(1_735_689_600_000)
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Timestamp, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned);
    text.parse()
        .map_err(|error| serde::de::Error::custom(format!("`at: {text}` {error}")))
}

fn default_seed() -> Seed {
    Seed(1)
}

fn seed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Seed, D::Error> {
    let value = Value::deserialize(deserializer)?;
    let text = value
        .as_str()
        .map_or_else(|| value.to_string(), ToOwned::to_owned);
    text.parse()
        .map_err(|_| serde::de::Error::custom(format!("seed {text} is not 1 to 16 hex digits in quotes")))
}

/// The process's rules, as far as the case sets them.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseRules {
    /// When fallback rules are asked.
    pub fallback_evaluation: Option<FallbackEvaluation>,
    /// Whether `5xx` stands for every such status.
    pub status_classes: Option<bool>,
    /// The tenant's limit.
    pub tenant_limit: Option<CaseLimit>,
    /// The limit of the process.
    pub global_limit: Option<CaseLimit>,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseLimit {
    /// Tokens that come back per second.
    pub requests_per_second: u32,
    /// Tokens that the bucket holds.
    pub burst: u32,
}

/// What is remembered before the first step.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CaseMemory {
    /// Sticky sessions.
    pub sticky: Vec<CaseSession>,
    /// State by provider: `closed`, `open`, `half_open`.
    pub breakers: BTreeMap<String, State>,
    /// Providers whose health check fails.
    pub unhealthy: Vec<String>,
}

impl CaseMemory {
    /// Keys whose content no decision by this policy looks at.
    pub fn without_effect(&self, policy: &RoutingPolicy) -> Vec<&'static str> {
        let mut keys = Vec::new();
        if !self.breakers.is_empty() && !policy.has_breakers() {
            keys.push("breakers");
        }
        if !self.unhealthy.is_empty() && !policy.excludes_unhealthy() {
            keys.push("unhealthy");
        }
        keys
    }
}

/// A sticky session.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseSession {
    /// The session's value.
    pub session: Value,
    /// The provider that it is bound to.
    pub provider: String,
    /// Seconds since it was bound.
    #[serde(default)]
    pub age_seconds: u64,
    /// Seconds that it lasts.
    #[serde(default = "default_ttl")]
    pub ttl_seconds: i64,
}

fn default_ttl() -> i64 {
    3_600
}

/// One request, and the result that is wanted.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Milliseconds since the step before.
    #[serde(default)]
    pub after_ms: u64,
    /// The tenant, if it is not the case's.
    pub tenant_id: Option<String>,
    /// The request's context.
    #[serde(default)]
    pub context: Map<String, Value>,
    /// The message's type, for the context and for extensions.
    pub message_type: Option<String>,
    /// The message's payload.
    pub payload: Option<Value>,
    /// A whole request as the Router sends it, in place of `context`, `message_type` and `payload`. Its tenant and
    /// policy id replace the case's.
    pub request: Option<Value>,
    /// A result that is reported before the request.
    pub result: Option<CaseResult>,
    /// How often the request is repeated; each must have the same result.
    #[serde(default = "once")]
    pub repeat: u32,
    /// The result that is wanted.
    pub want: Want,
}

fn once() -> u32 {
    1
}

/// The result of a call to a provider.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseResult {
    /// The provider that was called.
    pub provider_id: String,
    /// `success`, `error` or `timeout`.
    pub status: String,
    /// The provider's code, such as `503`.
    pub error_code: Option<String>,
    /// Milliseconds that the call took.
    pub latency_ms: Option<u64>,
    /// How often it is reported.
    #[serde(default = "once")]
    pub times: u32,
}

/// The wanted result of a step. Fields that are not set may have any value.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Want {
    /// The provider that is chosen.
    pub provider_id: Option<String>,
    /// Why it is chosen, such as `weighted`.
    pub reason: Option<String>,
    /// The priority on the wire.
    pub priority: Option<u8>,
    /// At least these entries.
    pub metadata: Map<String, Value>,
    /// All of them, in order, as `pre normalize ok`.
    pub executed_extensions: Option<Vec<String>>,
    /// The internal name of a refusal, such as `no_provider_available`.
    pub refusal: Option<String>,
    /// The refusal's `error.code` on the wire.
    pub code: Option<String>,
    /// The refusal's sentence.
    pub message: Option<String>,
    /// At least this of the refusal's details.
    pub details: Map<String, Value>,
    /// The level of the explanation; default detailed.
    pub level: Option<String>,
    /// All of its steps.
    pub steps: Option<Vec<String>>,
    /// Exactly this context of the explanation.
    pub explanation_context: Option<Map<String, Value>>,
    /// At least this of its evidence.
    pub evidence: Map<String, Value>,
    /// What is remembered afterwards.
    pub memory: WantedMemory,
    /// Shares over as many seeds; none of these requests is remembered.
    pub distribution: Option<Distribution>,
}

/// What is remembered after a step, of the step's tenant.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct WantedMemory {
    /// Sticky sessions.
    pub sticky: Vec<WantedSession>,
    /// States by provider: `closed`, `open`, `half_open`; `null`: it has no breaker.
    pub breakers: BTreeMap<String, Option<State>>,
}

/// A sticky session that is wanted, or is not.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WantedSession {
    /// The session's value.
    pub session: Value,
    /// `null`: there must be no such session.
    pub provider: Option<String>,
}

/// How often each provider is to be chosen.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Distribution {
    /// Decisions, with the seeds from 0.
    pub runs: u64,
    /// The share of each provider, or of each refusal by its name; others must have none.
    pub shares: BTreeMap<String, f64>,
    /// How far a share may be off.
    pub tolerance: f64,
}

/// Why a case cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The file cannot be read, or a case of it makes no sense.
    #[error("{path}: {reason}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The file is not YAML of this form.
    #[error("{place}: {reason}")]
    Invalid {
        /// File, line and column.
        place: String,
        /// What the reader expected.
        reason: String,
    },
}

/// Reads the cases of a file: one, or a list of them.
pub fn load(path: &Path) -> Result<Vec<Case>, CaseError> {
    let unreadable = |reason: String| CaseError::Unreadable {
        path: path.to_owned(),
        reason,
    };
    let text = fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    let cases = parse(&text).map_err(|error| CaseError::Invalid {
        // The place in the form of compiler messages, for editors to jump to.
        place: match error.location() {
            Some(at) => format!("{}:{}:{}", path.display(), at.line(), at.column()),
            None => path.display().to_string(),
        },
        reason: error.without_snippet().to_string(),
    });
    let mut cases = cases?;
    for case in &mut cases {
        check(case).map_err(|reason| unreadable(format!("{:?} {reason}", case.description)))?;
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

/// Reads one case, or a list of them.
fn parse(text: &str) -> Result<Vec<Case>, serde_saphyr::Error> {
    let is_blank = |line: &&str| line.trim().is_empty() || line.starts_with('#') || line.starts_with("---");
    let first = text.lines().find(|line| !is_blank(line)).unwrap_or_default();
    if first.trim_start().starts_with(['-', '[']) {
        yaml::read(text)
    } else {
        yaml::read(text).map(|case| vec![case])
    }
}

/// Refuses cases that would pass whatever the policy decides, and cases with two meanings.
fn check(case: &Case) -> Result<(), String> {
    if case.steps.is_empty() {
        return Err("has no steps".to_owned());
    }
    if case.policy.is_some() && case.policy_file.is_some() {
        return Err("has a policy and a policy_file; leave one of them out".to_owned());
    }
    TenantId::parse(&case.tenant_id).map_err(|error| format!("tenant_id {error}"))?;
    PolicyId::parse(&case.policy_id).map_err(|error| format!("policy_id {error}"))?;
    for (index, step) in case.steps.iter().enumerate() {
        let number = index + 1;
        if step.repeat == 0 {
            return Err(format!("step {number} is repeated 0 times; leave it out"));
        }
        if let Some(Err(error)) = step.tenant_id.as_deref().map(TenantId::parse) {
            return Err(format!("step {number}: tenant_id {error}"));
        }
        if let Some(request) = &step.request {
            DecideRequest::parse(request.to_string().as_bytes()).map_err(|refused| {
                format!("step {number}: request: {} ({})", refused.message, refused.reason)
            })?;
        }
        let described = !step.context.is_empty() || step.message_type.is_some() || step.payload.is_some();
        if step.request.is_some() && (described || step.tenant_id.is_some()) {
            return Err(format!(
                "step {number} has a request, which has its own tenant, context, message_type and payload"
            ));
        }
        let refused = step.want.refusal.is_some();
        if !refused
            && (step.want.code.is_some() || step.want.message.is_some() || !step.want.details.is_empty())
        {
            return Err(format!(
                "step {number} wants code, message or details, which only a refusal has; name the refusal"
            ));
        }
        if let Some(level) = &step.want.level
            && DetailLevel::parse(level).is_none()
        {
            return Err(format!(
                "step {number} wants level {level:?}; there are minimal, detailed and verbose"
            ));
        }
        if let Some(wanted) = &step.want.distribution {
            let others = Want {
                distribution: None,
                ..step.want.clone()
            };
            if others != Want::default() {
                return Err(format!(
                    "step {number} wants a distribution and something else; split it into two steps"
                ));
            }
            if wanted.runs == 0 {
                return Err(format!("step {number} wants a distribution of no runs"));
            }
        }
    }
    Ok(())
}
