//! The result of a step compared with the wanted one.

use serde_json::{Value, json};

use super::{
    case::{Want, WantedMemory, WantedSession},
    compare::{Difference, at_least},
};
use crate::{
    decide::{
        DecideContext, Decision, DecisionInput, Explaining, Provenance,
        memory::{Memory, Session},
    },
    policy::{DetailLevel, RoutingPolicy},
};

/// The inputs of an explanation, except the decision.
pub(super) struct Explain<'a> {
    pub(super) policy: &'a RoutingPolicy,
    pub(super) input: DecisionInput<'a>,
    pub(super) at: DecideContext<'a>,
    pub(super) memory: &'a Memory,
}

/// Compares the memory with the wanted one. Reading changes nothing in it.
pub(super) fn recall(want: &WantedMemory, explain: &Explain<'_>, differences: &mut Vec<Difference>) {
    let (tenant, memory) = (explain.input.tenant, explain.memory);
    let ttl_seconds = explain
        .policy
        .sticky
        .as_deref()
        .map_or(i64::from(u32::MAX), |sticky| sticky.ttl_seconds);
    for WantedSession { session, provider } in &want.sticky {
        let name = Session {
            tenant,
            value: session,
        };
        let got = memory.sticky.peek(name, ttl_seconds, explain.at.now);
        at_least(
            &format!("memory.sticky[{session}]"),
            &json!(provider),
            &json!(got),
            differences,
        );
    }
    for (provider, state) in &want.breakers {
        let got = memory.breakers.state(tenant, provider);
        at_least(
            &format!("memory.breakers.{provider}"),
            &json!(state),
            &json!(got),
            differences,
        );
    }
}

/// Compares a decision with the wanted one.
pub(super) fn judge(
    want: &Want,
    decision: &Decision,
    explain: &Explain<'_>,
    differences: &mut Vec<Difference>,
) {
    let mut compare = |path: &str, wanted: Option<Value>, got: Value| {
        if let Some(wanted) = wanted {
            at_least(path, &wanted, &got, differences);
        }
    };
    let how = &decision.selection.how;
    let got = || format!("{} {}", how.reason(), decision.selection.provider);
    compare(
        "refusal",
        want.refusal.as_ref().map(|name| json!(name)),
        got().into(),
    );
    compare(
        "provider_id",
        want.provider_id.as_ref().map(|id| json!(id)),
        json!(decision.selection.provider),
    );
    compare(
        "reason",
        want.reason.as_ref().map(|reason| json!(reason)),
        how.reason().into(),
    );
    compare("priority", want.priority.map(Into::into), how.priority().into());
    let mut metadata = explain.input.context.clone();
    metadata.extend(decision.extras(explain.policy));
    compare(
        "metadata",
        Some(Value::Object(want.metadata.clone())),
        Value::Object(metadata),
    );
    compare(
        "executed_extensions",
        want.executed_extensions.as_ref().map(|list| json!(list)),
        executed_lines(&json!(decision.executed)),
    );
    let level = want
        .level
        .as_deref()
        .and_then(DetailLevel::parse)
        .unwrap_or(DetailLevel::Detailed);
    let Explain {
        policy,
        input,
        at,
        memory,
    } = *explain;
    let explaining = Explaining {
        decision,
        policy,
        input,
        at,
        memory,
        provenance: Provenance::default(),
    };
    let explanation = explaining.explain(level, None);
    compare(
        "steps",
        want.steps.as_ref().map(|steps| json!(steps)),
        json!(explanation.steps),
    );
    compare(
        "evidence",
        Some(Value::Object(want.evidence.clone())),
        json!(
            explanation
                .evidence
                .as_ref()
                .map_or(json!({}), |evidence| json!(evidence))
        ),
    );
    if let Some(wanted) = &want.explanation_context
        && *wanted != explanation.context
    {
        let (wanted, got) = (Value::Object(wanted.clone()), Value::Object(explanation.context));
        differences.push(Difference {
            path: "explanation_context".into(),
            wanted,
            got,
        });
    }
}

/// Executed extensions as cases write them: `pre normalize ok`.
pub(super) fn executed_lines(executed: &Value) -> Value {
    let text = |item: &Value| {
        let field = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", field("type"), field("id"), field("status"))
    };
    executed.as_array().into_iter().flatten().map(text).collect()
}
