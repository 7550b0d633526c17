//! One case, run.

use std::fmt;

use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    case::{Case, Step},
    compare::{Difference, at_least},
    judge::{Explain, executed_lines, judge, recall},
    setting::{remembered, rules},
};
use crate::{
    decide::{
        Context, DecideContext, Decision, DecisionId, DecisionInput, Effects, Message, Outcome, Refusal,
        Rules, Scripted, Seed, Timestamp, decide_now,
        memory::{CallResult, Memory, classify},
    },
    intake::DecideRequest,
    policy::{PolicyId, ProviderId, RoutingPolicy, TenantId, read_object},
};

/// A step whose result is not the wanted one.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Counted from 1.
    pub step: usize,
    /// What differs, such as `metadata.region`.
    pub path: String,
    /// What the case wants.
    pub wanted: Value,
    /// The actual value.
    pub got: Value,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            step,
            path,
            wanted,
            got,
        } = self;
        write!(f, "step {step}, {path}")?;
        match (wanted, got) {
            (Value::Array(wanted), Value::Array(got)) => {
                write!(
                    f,
                    "\n    wanted{}\n    got{}",
                    Lines('-', wanted, got),
                    Lines('+', got, wanted)
                )
            }
            _ => write!(f, "\n    wanted {wanted}\n    got    {got}"),
        }
    }
}

/// A list, one item per line; items that the other list does not have are marked.
struct Lines<'a>(char, &'a [Value], &'a [Value]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(mark, items, others) = self;
        if items.is_empty() {
            f.write_str(" []")?;
        }
        for item in *items {
            let mark = if others.contains(item) { ' ' } else { *mark };
            match item {
                Value::String(text) => write!(f, "\n    {mark} {text}")?,
                other => write!(f, "\n    {mark} {other}")?,
            }
        }
        Ok(())
    }
}

/// Decides with the extensions of a case, or others in their place.
pub type Decide<'d> =
    &'d dyn Fn(&RoutingPolicy, DecisionInput<'_>, &Rules, &Memory, &Scripted, DecideContext<'_>) -> Outcome;

/// Runs a case to its end and returns all differences. A case that cannot be run is one difference.
pub fn run(case: &Case) -> Vec<Mismatch> {
    run_by(case, &|policy, input, rules, memory, extensions, at| {
        decide_now(policy, input, rules, memory, extensions, at)
    })
}

/// As [`run`], with decisions made so.
pub fn run_by(case: &Case, decide: Decide<'_>) -> Vec<Mismatch> {
    match Running::new(case, decide) {
        Ok(mut running) => {
            let mut mismatches = Vec::new();
            for (index, step) in case.steps.iter().enumerate() {
                running.now = Timestamp::from_unix_ms(running.now.unix_ms.saturating_add(step.after_ms));
                for time in 1..=step.repeat {
                    let differences = running.step(step);
                    if differences.is_empty() {
                        continue;
                    }
                    let mismatch = |Difference { path, wanted, got }| Mismatch {
                        step: index + 1,
                        path: match step.repeat {
                            1 => path,
                            times => format!("{path} ({time} of {times})"),
                        },
                        wanted,
                        got,
                    };
                    mismatches.extend(differences.into_iter().map(mismatch));
                    // Further repetitions would differ in the same way.
                    break;
                }
            }
            mismatches
        }
        Err(reason) => vec![Mismatch {
            step: 0,
            path: "case".to_owned(),
            wanted: "a case that can be run".into(),
            got: reason.into(),
        }],
    }
}

struct Running<'c> {
    case: &'c Case,
    decide: Decide<'c>,
    policy: RoutingPolicy,
    tenant: TenantId,
    policy_id: PolicyId,
    rules: Rules,
    memory: Memory,
    seed: Seed,
    now: Timestamp,
}

impl<'c> Running<'c> {
    fn new(case: &'c Case, decide: Decide<'c>) -> Result<Self, String> {
        let (policy, _) = read_object(case.policy.as_ref().unwrap_or(&Map::new()));
        let tenant = TenantId::parse(&case.tenant_id).map_err(|error| format!("tenant_id {error}"))?;
        let policy_id = PolicyId::parse(&case.policy_id).map_err(|error| format!("policy_id {error}"))?;
        let now = case.at;
        let memory = remembered(&case.memory, &tenant, &policy, now);
        Ok(Self {
            case,
            decide,
            policy,
            tenant,
            policy_id,
            rules: rules(case),
            memory,
            seed: case.seed,
            now,
        })
    }

    fn step(&mut self, step: &Step) -> Vec<Difference> {
        let mut differences = Vec::new();
        if let Some(result) = &step.result {
            let counted = classify(&result.status, result.error_code.as_deref(), None, None);
            let provider = ProviderId::new(&result.provider_id);
            for _ in 0..result.times {
                let failed = counted == Some(CallResult::Failure);
                self.memory.estimates.record(
                    &self.tenant,
                    &provider,
                    result.latency_ms,
                    None,
                    failed,
                    self.now,
                );
                if let Some(counted) = counted {
                    // The step shows the effect.
                    let _transition = self.memory.breakers.record(
                        &self.tenant,
                        &provider,
                        counted,
                        result.latency_ms,
                        self.now,
                    );
                }
            }
        }
        let want = &step.want;
        if let Some(wanted) = &want.distribution {
            let mut counts = std::collections::BTreeMap::<String, u64>::new();
            for seed in 0..wanted.runs {
                self.with(step, Seed(seed), Effects::Tried, |_, result| {
                    let name = result.map_or_else(
                        |refusal| refusal.error_type().to_owned(),
                        |decision| decision.selection.provider.to_string(),
                    );
                    *counts.entry(name).or_default() += 1;
                });
            }
            let names: std::collections::BTreeSet<&String> =
                counts.keys().chain(wanted.shares.keys()).collect();
            for name in names {
                let got = counts.get(name).copied().unwrap_or(0) as f64 / wanted.runs.max(1) as f64;
                let share = wanted.shares.get(name).copied().unwrap_or(0.0);
                if (got - share).abs() > wanted.tolerance {
                    differences.push(Difference {
                        path: format!("distribution.{name}"),
                        wanted: share.into(),
                        got: got.into(),
                    });
                }
            }
            return differences;
        }
        self.with(step, self.seed, Effects::Remembered, |explaining, result| {
            recall(&want.memory, explaining, &mut differences);
            match result {
                Ok(decision) => judge(want, decision, explaining, &mut differences),
                Err(refusal) => {
                    let wanted = want.refusal.as_deref().map_or(json!("a decision"), Value::from);
                    if want.refusal.as_deref() != Some(refusal.error_type()) {
                        let got = format!("{}: {}", refusal.error_type(), refusal.message()).into();
                        differences.push(Difference {
                            path: "refusal".into(),
                            wanted,
                            got,
                        });
                    }
                    if let Some(wanted) = &want.executed_extensions {
                        let got = refusal
                            .details()
                            .get("executed_extensions")
                            .cloned()
                            .unwrap_or_default();
                        at_least(
                            "executed_extensions",
                            &json!(wanted),
                            &executed_lines(&got),
                            &mut differences,
                        );
                    }
                    for (path, wanted, got) in [
                        ("code", &want.code, refusal.code().as_str().to_owned()),
                        ("message", &want.message, refusal.message()),
                    ] {
                        if let Some(wanted) = wanted {
                            at_least(path, &json!(wanted), &got.into(), &mut differences);
                        }
                    }
                    let wanted = Value::Object(want.details.clone());
                    at_least(
                        "details",
                        &wanted,
                        &Value::Object(refusal.details()),
                        &mut differences,
                    );
                }
            }
        });
        differences
    }

    fn with(
        &self,
        step: &Step,
        seed: Seed,
        effects: Effects,
        look: impl FnOnce(&Explain<'_>, Result<&Decision, &Refusal>),
    ) {
        let body = step.request.as_ref().map(Value::to_string);
        // It was checked when the case was read.
        let mut request = body
            .as_deref()
            .and_then(|body| DecideRequest::parse(body.as_bytes()).ok());
        let payload = step
            .payload
            .as_ref()
            .and_then(|payload| to_raw_value(payload).ok());
        let (tenant, policy_id, context, message) = match &mut request {
            Some(request) => {
                let context = request.take_context("");
                (
                    request.tenant.clone(),
                    request.policy_id.clone(),
                    context,
                    request.message(),
                )
            }
            None => {
                let tenant = step.tenant_id.as_deref().and_then(|id| TenantId::parse(id).ok());
                let tenant = tenant.unwrap_or_else(|| self.tenant.clone());
                let mut context: Context = step.context.clone();
                context.insert("tenant_id".into(), tenant.as_str().into());
                if let Some(kind) = &step.message_type {
                    context
                        .entry("message_type")
                        .or_insert_with(|| kind.as_str().into());
                }
                let message = Message {
                    message_type: step.message_type.as_deref(),
                    payload: payload.as_deref(),
                    ..Message::default()
                };
                (tenant, self.policy_id.clone(), context, message)
            }
        };
        let input = DecisionInput {
            tenant: &tenant,
            policy_id: &policy_id,
            context: &context,
            message,
        };
        let now = self.now;
        let later = move || now;
        let at = DecideContext {
            id: DecisionId(0),
            seed,
            now,
            later: &later,
            wall_ahead_ms: 0,
            effects,
        };
        let Outcome { result, .. } = (self.decide)(
            &self.policy,
            input,
            &self.rules,
            &self.memory,
            &self.case.extensions,
            at,
        );
        let explain = Explain {
            policy: &self.policy,
            input,
            at,
            memory: &self.memory,
        };
        look(&explain, result.as_ref());
    }
}
