//! The decision: which provider a request goes to, and why. Pure but for the memory and the extensions it is given:
//! time and chance are arguments, nothing here knows HTTP, sockets or a clock.
//!
//! ```text
//!  tenant allowed ─► policy found ─► tokens ─► depth ─► deadline ─► pre ─► validators ─► select ─► post ─► Decision
//!  select: caller's provider open? ─► rules after a failure ─► session ─► scorers, weights ─► rules ─► last resort
//! ```

use std::{future::Future, pin::pin, task};

mod admit;
mod backoff;
mod complexity;
mod config;
mod decision;
mod envelope;
mod explanation;
mod extension;
mod fallbacks;
mod input;
pub mod memory;
mod pipeline;
mod redact;
mod refusal;
mod seed;
mod select;
mod weights;

pub use crate::clock::{InvalidTimestamp, Timestamp};
pub use admit::{Allowance, check_depth};
pub use backoff::backoff_ms;
pub use complexity::Complexity;
pub use config::DecideConfig;
pub use decision::{Decision, EXPECTED_COST, EXPECTED_LATENCY_MS, Metadata};
pub use envelope::{Envelope, RequestContext};
pub use explanation::{
    Candidate, DrawEvidence, Evidence, Explaining, Explanation, ExtensionEvidence, Provenance,
    StickyEvidence, audit_form, detail_level,
};
pub use extension::{
    Answer, Call, Executed, ExtensionError, Extensions, Immediate, Input, MAX_METADATA_BYTES,
    MAX_PAYLOAD_BYTES, MAX_RETRIES, NoExtensions, ScoredProvider, Script, Scripted, Status, TIMEOUT_MS,
    Verdict, check_call,
};
pub use input::{
    Context, DecideContext, DecisionId, DecisionInput, Effects, FallbackEvaluation, Message, PipelineLimits,
    Rules,
};
pub use redact::{REDACTED, is_sensitive, redact};
pub use refusal::{RateLimited, Refusal, Stage};
pub use seed::Seed;
use seed::{Choices, Purpose};
pub use select::{Exclusion, Mechanism, Selection, StickyCheck};
pub use weights::Draw;

use self::{
    memory::{Memory, Transition},
    pipeline::Run,
};
use crate::policy::RoutingPolicy;

/// The random part of backoffs.
#[derive(Debug)]
pub struct Jitter(Choices);

/// What came of a request for a decision.
#[derive(Debug)]
pub struct Outcome {
    pub result: Result<Decision, Refusal>,
    /// Breakers that changed on the way, for whoever logs and counts them.
    pub transitions: Vec<Transition>,
}

/// Decides. Whether the tenant may ask was checked before the policy was looked for: [`Rules::admit_tenant`].
pub async fn decide<E: Extensions>(
    policy: &RoutingPolicy,
    input: DecisionInput<'_>,
    rules: &Rules,
    memory: &Memory,
    extensions: &E,
    at: DecideContext<'_>,
) -> Outcome {
    let mut transitions = Vec::new();
    // A request can ask to be a dry run by its context, and then nothing of it is remembered either.
    let dry =
        rules.allow_metadata_dry_run && input.context.get("dry_run") == Some(&serde_json::Value::Bool(true));
    let effects = if dry { Effects::None } else { at.effects };
    let at = DecideContext { effects, ..at };
    let result = match &policy.pipeline {
        Some(pipeline) => {
            let mut run = Run::new(input, rules, at, extensions);
            async {
                let allowance = admit(policy, input, rules, memory, at)?;
                run.before(pipeline).await?;
                let selection = run.select(policy, pipeline, memory, &mut transitions).await?;
                let added = run.after(pipeline, &selection).await?;
                // Only a dry run shows what became of the message.
                let message = match at.effects {
                    Effects::None => run.message.to_value().into_owned(),
                    Effects::Remembered => serde_json::Value::Null,
                };
                Ok(Decision {
                    selection,
                    executed: run.executed,
                    added,
                    allowance,
                    message,
                })
            }
            .await
        }
        None => decide_alone(policy, input, rules, memory, at, &mut transitions),
    };
    Outcome { result, transitions }
}

/// Decides with extensions that answer at once.
pub fn decide_now<E: Immediate>(
    policy: &RoutingPolicy,
    input: DecisionInput<'_>,
    rules: &Rules,
    memory: &Memory,
    extensions: &E,
    at: DecideContext<'_>,
) -> Outcome {
    let mut deciding = pin!(decide(policy, input, rules, memory, extensions, at));
    let mut task = task::Context::from_waker(task::Waker::noop());
    loop {
        // Ready the first time: nothing in there waits but an extension.
        if let task::Poll::Ready(outcome) = deciding.as_mut().poll(&mut task) {
            return outcome;
        }
    }
}

/// A decision that no extension takes part in; it waits for nothing.
fn decide_alone(
    policy: &RoutingPolicy,
    input: DecisionInput<'_>,
    rules: &Rules,
    memory: &Memory,
    at: DecideContext<'_>,
    transitions: &mut Vec<Transition>,
) -> Result<Decision, Refusal> {
    let allowance = admit(policy, input, rules, memory, at)?;
    let selection = select::select(policy, input, input.context, rules, memory, at, transitions)?;
    Ok(Decision {
        selection,
        executed: Vec::new(),
        added: Context::new(),
        allowance,
        message: serde_json::Value::Null,
    })
}

/// The checks that come before everything else, in the contract's order.
fn admit(
    policy: &RoutingPolicy,
    input: DecisionInput<'_>,
    rules: &Rules,
    memory: &Memory,
    at: DecideContext<'_>,
) -> Result<Option<Allowance>, Refusal> {
    let names = (input.tenant, input.policy_id);
    let allowance = admit::take_tokens(policy, names, rules, memory, at.now, at.effects)?;
    if let Some(pipeline) = &policy.pipeline {
        check_depth(pipeline, rules.pipeline)?;
    }
    admit::check_deadline(input.context, at.now)?;
    Ok(allowance)
}
