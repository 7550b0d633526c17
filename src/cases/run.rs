//! One case, run.

use std::fmt;

use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    Case, CaseMemory, Step, Want,
    compare::{Difference, at_least},
};
use crate::{
    decide::{
        Circumstances, Context, Decision, DecisionId, Effects, Explaining, FallbackEvaluation, Inquiry,
        Message, Moment, Outcome, Provenance, Refusal, Rules, Seed, decide,
        memory::{Memory, MemoryLimits, Session, classify},
    },
    policy::{
        BreakerSettings, DetailLevel, LimitScope, PolicyId, ProviderId, RateLimit, RoutingPolicy, TenantId,
        read_object,
    },
};

/// A step that came to something else than wanted.
#[derive(Debug, Clone, PartialEq)]
pub struct Mismatch {
    /// Counted from 1.
    pub step: usize,
    pub path: String,
    pub wanted: Value,
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
        write!(f, "step {step}, {path}\n    wanted {wanted}\n    got    {got}")
    }
}

/// Runs a case to its end and tells everything that differs. A case that makes no sense differs by that.
pub fn run(case: &Case) -> Vec<Mismatch> {
    match Running::new(case) {
        Ok(mut running) => {
            let mut mismatches = Vec::new();
            for (index, step) in case.steps.iter().enumerate() {
                running.now = Moment::from_unix_ms(running.now.unix_ms.saturating_add(step.after_ms));
                for _ in 0..step.repeat.max(1) {
                    let differences = running.step(step);
                    let mismatch = |Difference { path, wanted, got }| Mismatch {
                        step: index + 1,
                        path,
                        wanted,
                        got,
                    };
                    mismatches.extend(differences.into_iter().map(mismatch));
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
    policy: RoutingPolicy,
    tenant: TenantId,
    policy_id: PolicyId,
    rules: Rules,
    memory: Memory,
    seed: Seed,
    now: Moment,
}

impl<'c> Running<'c> {
    fn new(case: &'c Case) -> Result<Self, String> {
        let (policy, _) = read_object(case.policy.as_ref().unwrap_or(&Map::new()));
        let tenant = TenantId::parse(&case.tenant_id).map_err(|error| format!("tenant_id {error}"))?;
        let policy_id = PolicyId::parse(&case.policy_id).map_err(|error| format!("policy_id {error}"))?;
        let seed = case
            .seed
            .parse()
            .map_err(|_| "seed is 1 to 16 hex digits".to_owned())?;
        let now = Moment::from_unix_ms(case.at);
        let memory = remembered(&case.memory, &tenant, &policy, now)?;
        Ok(Self {
            case,
            policy,
            tenant,
            policy_id,
            rules: rules(case),
            memory,
            seed,
            now,
        })
    }

    fn step(&mut self, step: &Step) -> Vec<Difference> {
        let mut differences = Vec::new();
        if let Some(result) = &step.result {
            let counted = classify(&result.status, result.error_code.as_deref(), None, None);
            let provider = ProviderId::new(&result.provider_id);
            for _ in 0..result.times {
                let failed = counted == Some(crate::decide::memory::CallResult::Failure);
                self.memory.estimates.record(
                    &self.tenant,
                    &provider,
                    result.latency_ms,
                    None,
                    failed,
                    self.now,
                );
                if let Some(counted) = counted {
                    // The step shows what came of it.
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
                self.with(step, Seed(seed), Effects::None, |_, result| {
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
        self.with(
            step,
            self.seed,
            Effects::Remembered,
            |explaining, result| match result {
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
                            &told(&got),
                            &mut differences,
                        );
                    }
                }
            },
        );
        differences
    }

    fn with(
        &self,
        step: &Step,
        seed: Seed,
        effects: Effects,
        look: impl FnOnce(&Explain<'_>, Result<&Decision, &Refusal>),
    ) {
        let tenant = step
            .tenant_id
            .as_deref()
            .and_then(|id| TenantId::parse(id).ok())
            .unwrap_or_else(|| self.tenant.clone());
        let mut context: Context = step.context.clone();
        context.insert("tenant_id".into(), tenant.as_str().into());
        let payload = step
            .payload
            .as_ref()
            .and_then(|payload| to_raw_value(payload).ok());
        let inquiry = Inquiry {
            tenant: &tenant,
            policy_id: &self.policy_id,
            context: &context,
            message: Message {
                payload: payload.as_deref(),
                ..Message::default()
            },
        };
        let now = self.now;
        let later = move || now;
        let at = Circumstances {
            id: DecisionId(0),
            seed,
            now,
            later: &later,
            effects,
        };
        // Scripted extensions never wait, so neither does the decision.
        let deciding = std::pin::pin!(decide(
            &self.policy,
            inquiry,
            &self.rules,
            &self.memory,
            &self.case.extensions,
            at
        ));
        let mut task = std::task::Context::from_waker(std::task::Waker::noop());
        let std::task::Poll::Ready(Outcome { result, .. }) = deciding.poll(&mut task) else {
            return;
        };
        let explain = Explain {
            policy: &self.policy,
            inquiry,
            at,
            memory: &self.memory,
        };
        look(&explain, result.as_ref());
    }
}

struct Explain<'a> {
    policy: &'a RoutingPolicy,
    inquiry: Inquiry<'a>,
    at: Circumstances<'a>,
    memory: &'a Memory,
}

fn judge(want: &Want, decision: &Decision, explain: &Explain<'_>, differences: &mut Vec<Difference>) {
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
    let mut metadata = explain.inquiry.context.clone();
    metadata.extend(decision.extras(explain.policy));
    compare(
        "metadata",
        Some(Value::Object(want.metadata.clone())),
        Value::Object(metadata),
    );
    compare(
        "executed_extensions",
        want.executed_extensions.as_ref().map(|list| json!(list)),
        told(&json!(decision.executed)),
    );
    let level = want
        .level
        .as_deref()
        .and_then(DetailLevel::parse)
        .unwrap_or(DetailLevel::Detailed);
    let Explain {
        policy,
        inquiry,
        at,
        memory,
    } = *explain;
    let explaining = Explaining {
        decision,
        policy,
        inquiry,
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
fn told(executed: &Value) -> Value {
    let text = |item: &Value| {
        let field = |key: &str| item[key].as_str().unwrap_or_default().to_owned();
        format!("{} {} {}", field("type"), field("id"), field("status"))
    };
    executed.as_array().into_iter().flatten().map(text).collect()
}

fn rules(case: &Case) -> Rules {
    let limit = |scope, limit: super::CaseLimit| RateLimit {
        scope,
        requests_per_second: limit.requests_per_second.into(),
        burst: limit.burst,
        window_seconds: 1,
    };
    let mut rules = Rules {
        fallback_evaluation: case
            .rules
            .fallback_evaluation
            .unwrap_or(FallbackEvaluation::OnFailure),
        tenant_limit: case.rules.tenant_limit.map(|one| limit(LimitScope::Tenant, one)),
        global_limit: case.rules.global_limit.map(|one| limit(LimitScope::Global, one)),
        ..Rules::default()
    };
    if let Some(status_classes) = case.rules.status_classes {
        rules.conditions.status_classes = status_classes;
    }
    rules
}

fn remembered(
    wanted: &CaseMemory,
    tenant: &TenantId,
    policy: &RoutingPolicy,
    now: Moment,
) -> Result<Memory, String> {
    let memory = Memory::new(MemoryLimits {
        sessions: 10_000,
        buckets: 1_000,
        providers: 1_000,
    });
    for session in &wanted.sticky {
        let then = Moment::from_unix_ms(now.unix_ms.saturating_sub(session.age_seconds * 1_000));
        let name = Session {
            tenant,
            value: &session.session,
        };
        memory.sticky.store(
            name,
            &ProviderId::new(&session.provider),
            session.ttl_seconds,
            then,
        );
    }
    let settings = policy
        .circuit_breaker
        .as_deref()
        .copied()
        .unwrap_or_else(BreakerSettings::built_in);
    for (provider, state) in &wanted.breakers {
        let provider = ProviderId::new(provider);
        memory.breakers.configure(tenant, &provider, settings, now);
        match state.as_str() {
            "closed" => {}
            "open" | "half_open" => {
                // The way it goes in life: enough failures.
                for _ in 0..settings.failure_threshold {
                    let failure = crate::decide::memory::CallResult::Failure;
                    let _transition = memory.breakers.record(tenant, &provider, failure, None, now);
                }
                if state == "half_open" {
                    let _was = memory
                        .breakers
                        .force_recovery_to_half_open(tenant, provider.as_str(), now);
                }
            }
            other => {
                return Err(format!(
                    "there is no breaker state {other:?}: closed, open, half_open"
                ));
            }
        }
    }
    for provider in &wanted.unhealthy {
        memory.health.set(tenant, &ProviderId::new(provider), false);
    }
    Ok(memory)
}
