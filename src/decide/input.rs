//! The input of a decision, and the rules of the process for decisions.

use std::{collections::BTreeSet, fmt};

use serde_json::{Map, Value, json, value::RawValue};

use super::{Seed, Timestamp};
use crate::policy::{ConditionRules, DetailLevel, PolicyId, RateLimit, TenantId};

/// The context, from which conditions, session keys and counters are read.
pub type Context = Map<String, Value>;

/// One request for a decision.
#[derive(Debug, Clone, Copy)]
pub struct DecisionInput<'a> {
    /// The tenant whose policy and memory apply.
    pub tenant: &'a TenantId,
    /// The policy that the request names.
    pub policy_id: &'a PolicyId,
    /// The merged context: the request's, with `tenant_id`, `environment`, `trace_id` and `message_type` added.
    pub context: &'a Context,
    /// The part of the request that extensions see.
    pub message: Message<'a>,
}

/// The parts of the request's message. They are assembled only for a policy with extensions.
#[derive(Debug, Clone, Copy, Default)]
pub struct Message<'a> {
    /// The request's id. `None`: left out of the message.
    pub message_id: Option<&'a str>,
    /// The trace that the request belongs to. `None`: left out of the message.
    pub trace_id: Option<&'a str>,
    /// `None`: `unknown`.
    pub message_type: Option<&'a str>,
    /// Where the payload is stored. `None`: left out of the message.
    pub payload_ref: Option<&'a str>,
    /// The payload as JSON text, its syntax checked. `None`: left out of the message.
    pub payload: Option<&'a RawValue>,
    /// The platform's run. `None`: left out of the message.
    pub run_id: Option<&'a str>,
    /// The platform's flow. `None`: left out of the message.
    pub flow_id: Option<&'a str>,
    /// The step in the flow. `None`: left out of the message.
    pub step_id: Option<&'a str>,
}

impl Message<'_> {
    /// The message object of the platform's envelope. Unknown parts are left out.
    pub fn to_json(self, tenant: &TenantId) -> Value {
        let mut message = json!({
            "tenant_id": tenant,
            "message_type": self.message_type.unwrap_or("unknown"),
        });
        for (key, text) in [
            ("message_id", self.message_id),
            ("trace_id", self.trace_id),
            ("payload_ref", self.payload_ref),
            ("run_id", self.run_id),
            ("flow_id", self.flow_id),
            ("step_id", self.step_id),
        ] {
            if let Some(text) = text {
                message[key] = text.into();
            }
        }
        // Its syntax was checked before; if it is nested too deeply for a tree, it stays text.
        if let Some(payload) = self.payload {
            message["payload"] =
                serde_json::from_str(payload.get()).unwrap_or_else(|_deep| payload.get().into());
        }
        message
    }
}

/// A decision's name: in the answer, the explanation, the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DecisionId(pub u128);

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// The time, the seed and the effects of a decision.
#[derive(Clone, Copy)]
pub struct DecideContext<'a> {
    /// The name of the decision.
    pub id: DecisionId,
    /// The source of all random choices.
    pub seed: Seed,
    /// The time at which the decision begins.
    pub now: Timestamp,
    /// The time after an extension has run; `now` if time stands still.
    pub later: &'a (dyn Fn() -> Timestamp + Sync),
    /// How far the time of day, which deadlines are told in, is ahead of those two.
    pub wall_ahead_ms: i64,
    /// Whether the memory changes and extensions are called.
    pub effects: Effects,
}

impl DecideContext<'_> {
    /// The time of day at a time of this decision.
    pub fn on_the_wall(&self, at: Timestamp) -> Timestamp {
        at.shifted(self.wall_ahead_ms)
    }
}

impl fmt::Debug for DecideContext<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            id,
            seed,
            now,
            later: _,
            wall_ahead_ms,
            effects,
        } = self;
        f.debug_struct("DecideContext")
            .field("id", id)
            .field("seed", seed)
            .field("now", now)
            .field("wall_ahead_ms", wall_ahead_ms)
            .field("effects", effects)
            .finish_non_exhaustive()
    }
}

/// Whether a decision has effects on the memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effects {
    /// Sessions are stored, tokens taken, half-open budgets used.
    Remembered,
    /// As a dry run, but extensions are called: for trying policies.
    Tried,
    /// A dry run: memory is read and nothing in it changes, and no extension is called.
    None,
}

/// The rules for decisions from the process's configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Rules {
    /// Tenants that may request decisions; `None`: all.
    pub allowed_tenants: Option<BTreeSet<TenantId>>,
    /// When fallback rules apply.
    pub fallback_evaluation: FallbackEvaluation,
    /// Whether `dry_run` in the context makes a dry run of a request.
    pub allow_metadata_dry_run: bool,
    /// How conditions are read.
    pub conditions: ConditionRules,
    /// The level if neither request nor policy names one.
    pub detail_level: DetailLevel,
    /// The limit of every tenant, with a separate bucket for each.
    pub tenant_limit: Option<RateLimit>,
    /// The limit of all requests together.
    pub global_limit: Option<RateLimit>,
    /// The maximum lengths of a policy's lists of extensions.
    pub pipeline: PipelineLimits,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            allowed_tenants: None,
            fallback_evaluation: FallbackEvaluation::OnFailure,
            allow_metadata_dry_run: true,
            conditions: ConditionRules::default(),
            detail_level: DetailLevel::Detailed,
            tenant_limit: None,
            global_limit: None,
            pipeline: PipelineLimits::default(),
        }
    }
}

/// When fallback rules apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum FallbackEvaluation {
    /// First, where the request says that a provider failed (`current_provider` and a `status` other than `success`);
    /// otherwise after the weights yield no provider.
    OnFailure,
    /// Only after the weights yield no provider: the order of the Router's own code.
    WeightsExhausted,
}

/// The maximum lengths of a policy's lists of extensions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PipelineLimits {
    /// All lists together; 10 by default.
    pub total: usize,
    /// Pre-processors; 5 by default.
    pub pre: usize,
    /// Validators; 5 by default.
    pub validators: usize,
    /// Scorers; 5 by default.
    pub scorers: usize,
    /// Post-processors; 5 by default.
    pub post: usize,
}

impl Default for PipelineLimits {
    fn default() -> Self {
        Self {
            total: 10,
            pre: 5,
            validators: 5,
            scorers: 5,
            post: 5,
        }
    }
}
