//! A decision: which provider a request goes to.

use std::time::Instant;

use super::{
    entry::{Intake, about, refused},
    find::SnapshotStamp,
    record::Recorder,
    request::DecideRequest,
};
use crate::{
    clock,
    decide::{
        Allowance, Context, DecideContext, Decision, DecisionId, DecisionInput, Effects, Explaining,
        Explanation, Outcome, Provenance, Rules, Seed, decide, detail_level,
    },
    extensions::Asking,
    failure::Failure,
    policy::{DetailLevel, RoutingPolicy},
};

/// What a caller may ask for besides the request.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Repeats a decision; only where [`Intake::allows_seed`]. `None`: a new one.
    pub seed: Option<Seed>,
    /// Whether the answer explains the decision.
    pub explain: Explain,
}

/// Whether an explanation is wanted, besides what the request's context says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Explain {
    /// Only where the context has a `detail_level`.
    #[default]
    IfContextAsks,
    /// At the level of the context, the policy or the process.
    AtItsLevel,
    /// At this level.
    At(DetailLevel),
}

/// A decision that was made, with everything that an answer says of it.
#[derive(Debug)]
pub struct Decided<'a> {
    /// The request, parsed and valid.
    pub request: DecideRequest<'a>,
    /// Identifies the decision in answers and logs.
    pub id: DecisionId,
    /// Seed of the random choices; the same seed repeats the decision.
    pub seed: Seed,
    /// The outcome of the pipeline.
    pub decision: Decision,
    /// The context that the decision was made in.
    pub context: Context,
    /// What the decision adds to the context to make its metadata.
    pub extras: Context,
    /// Estimated latency of the chosen provider, in milliseconds.
    pub expected_latency_ms: u64,
    /// Estimated cost of the call to the chosen provider.
    pub expected_cost: f64,
    /// `None` where none was asked for.
    pub explanation: Option<Explanation>,
    /// The snapshot that the policy is from.
    pub stamp: SnapshotStamp,
}

impl Decided<'_> {
    /// What is left of the narrowest limit that applied.
    pub const fn allowance(&self) -> Option<Allowance> {
        self.decision.allowance
    }
}

impl Intake {
    /// Decides on a request that was [read](Intake::read) or [admitted](Intake::admit).
    ///
    /// # Errors
    /// What the decision refused, and why the policy cannot be used.
    pub async fn decide<'a>(
        &self,
        mut request: DecideRequest<'a>,
        options: Options,
    ) -> Result<Decided<'a>, Failure> {
        let mut started = Instant::now();
        let recorder = Recorder::new(&self.store, &self.metrics);
        let found = match self.find_and_read(&request.tenant, &request.policy_id).await {
            Ok(found) => found,
            Err(failure) => {
                recorder.not_found(&request.tenant, started);
                return Err(about(failure, &request));
            }
        };
        if !found.cached {
            // What is timed is the decision; the call to HEIR has a histogram of its own.
            started = Instant::now();
        }
        let context = request.take_context(&self.environment);
        let input = DecisionInput {
            tenant: &request.tenant,
            policy_id: &request.policy_id,
            context: &context,
            message: request.message(),
        };
        let at = DecideContext {
            id: DecisionId(fastrand::u128(..)),
            seed: options.seed.unwrap_or_else(|| Seed(fastrand::u64(..))),
            now: clock::now(),
            later: &clock::now,
            wall_ahead_ms: clock::ahead_ms(),
            effects: Effects::Remembered,
        };
        let policy = found.policy.routing();
        let asking = Asking {
            request_id: &request.request_id,
            trace_id: request.trace_id.as_deref(),
        };
        let calls = self.extensions.calls(&found.registry, asking);
        let Outcome { result, transitions } =
            decide(policy, input, &self.rules, &self.memory, &calls, at).await;
        recorder.transitions(&transitions);
        let decision = match result {
            Ok(decision) => decision,
            Err(refusal) => {
                recorder.refused(input, at, &refusal, started);
                let mut failure =
                    refused(&refusal, &request).decision(at.id.to_string(), at.seed.to_string());
                if let Some(broken) = &found.broken {
                    failure = failure.detail("policy_problem", broken.to_string());
                }
                return Err(failure);
            }
        };
        let explaining = Explaining {
            decision: &decision,
            policy,
            input,
            at,
            memory: &self.memory,
            provenance: Provenance {
                policy_revision: found.policy.revision,
                snapshot_revision: found.stamp.revision,
                policy_cache_hit: Some(found.cached),
                decision_latency_ms: Some(started.elapsed().as_secs_f64() * 1e3),
            },
        };
        let mut explanation = options.explain.of(&context, policy, &self.rules, &explaining);
        if let (Some(explanation), Some(broken)) = (&mut explanation, &found.broken) {
            explanation.warnings.push(broken.to_string());
        }
        let extras = decision.extras(policy);
        let expected_latency_ms = decision.expected_latency_ms(input, &self.memory);
        let expected_cost = decision.expected_cost(input, &self.memory);
        recorder.decided(&explaining, started);
        if self.log_decisions {
            recorder.log(&explaining, found.broken.as_ref());
        }
        Ok(Decided {
            id: at.id,
            seed: at.seed,
            extras,
            expected_latency_ms,
            expected_cost,
            explanation,
            stamp: found.stamp,
            request,
            decision,
            context,
        })
    }
}

impl Explain {
    fn of(
        self,
        context: &Context,
        policy: &RoutingPolicy,
        rules: &Rules,
        explaining: &Explaining<'_>,
    ) -> Option<Explanation> {
        let (level, unknown_level) = detail_level(context, policy, rules);
        match self {
            Self::IfContextAsks => context
                .contains_key("detail_level")
                .then(|| explaining.explain(level, unknown_level)),
            Self::AtItsLevel => Some(explaining.explain(level, unknown_level)),
            Self::At(level) => Some(explaining.explain(level, None)),
        }
    }
}
