//! The sequence of a decision.

use std::{future::Future, pin::pin, task};

use serde_json::Value;

use super::{
    admit::{self, Allowance, check_depth},
    decision::Decision,
    extension::{Extensions, Immediate},
    input::{Context, DecideContext, DecisionInput, Effects, Rules},
    memory::{Memory, Transition},
    pipeline::Run,
    refusal::Refusal,
    select,
};
use crate::policy::RoutingPolicy;

/// What came of a request for a decision.
#[derive(Debug)]
pub struct Outcome {
    /// The decision, or why there is none.
    pub result: Result<Decision, Refusal>,
    /// Breakers that changed on the way, to be logged and counted.
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
    let dry = rules.allow_metadata_dry_run && input.context.get("dry_run") == Some(&Value::Bool(true));
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
                    Effects::Tried | Effects::None => run.message.to_value().into_owned(),
                    Effects::Remembered => Value::Null,
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
        message: Value::Null,
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
    admit::check_deadline(input.context, at.on_the_wall(at.now))?;
    Ok(allowance)
}
