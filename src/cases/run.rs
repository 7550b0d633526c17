//! One case, run.

use std::fmt;

use serde_json::{Map, Value, json, value::to_raw_value};

use super::{
    Case, CaseMemory, Step, Want, WantedMemory, WantedSession,
    compare::{Difference, at_least},
};
use crate::{
    decide::{
        Circumstances, Context, Decision, DecisionId, Effects, Explaining, FallbackEvaluation, Inquiry,
        Message, Moment, Outcome, Provenance, Refusal, Rules, Seed, decide,
        memory::{CallResult, Memory, MemoryLimits, Session, State, classify},
    },
    policy::{
        BreakerSettings, DetailLevel, LimitScope, PolicyId, ProviderId, RateLimit, RoutingPolicy, TenantId,
        read_object,
    },
    route::DecideRequest,
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

/// A list, an item a line; what the other list has not is marked.
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

/// Runs a case to its end and tells everything that differs. A case that makes no sense differs by that.
pub fn run(case: &Case) -> Vec<Mismatch> {
    match Running::new(case) {
        Ok(mut running) => {
            let mut mismatches = Vec::new();
            for (index, step) in case.steps.iter().enumerate() {
                running.now = Moment::from_unix_ms(running.now.unix_ms.saturating_add(step.after_ms));
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
                    // The rest would say the same again.
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
        let now = case.at;
        let memory = remembered(&case.memory, &tenant, &policy, now);
        Ok(Self {
            case,
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
                            &told(&got),
                            &mut differences,
                        );
                    }
                    for (path, wanted, got) in [
                        ("code", &want.code, refusal.wire_code().to_owned()),
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
        // It was read when the case was.
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
        let inquiry = Inquiry {
            tenant: &tenant,
            policy_id: &policy_id,
            context: &context,
            message,
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

/// Looks up what is wanted of the memory. Looking changes nothing in it.
fn recall(want: &WantedMemory, explain: &Explain<'_>, differences: &mut Vec<Difference>) {
    let (tenant, memory) = (explain.inquiry.tenant, explain.memory);
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

/// A memory that holds what a case says, for one tenant.
pub fn remembered(wanted: &CaseMemory, tenant: &TenantId, policy: &RoutingPolicy, now: Moment) -> Memory {
    let memory = Memory::new(MemoryLimits {
        sessions: 10_000,
        buckets: 1_000,
        providers: 1_000,
    });
    for session in &wanted.sticky {
        let then = Moment::from_unix_ms(
            now.unix_ms
                .saturating_sub(session.age_seconds.saturating_mul(1_000)),
        );
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
        if *state != State::Closed {
            // The way it goes in life: enough failures.
            for _ in 0..settings.failure_threshold {
                let _transition = memory
                    .breakers
                    .record(tenant, &provider, CallResult::Failure, None, now);
            }
        }
        if *state == State::HalfOpen {
            let _was = memory
                .breakers
                .force_recovery_to_half_open(tenant, provider.as_str(), now);
        }
    }
    for provider in &wanted.unhealthy {
        memory.health.set(tenant, &ProviderId::new(provider), false);
    }
    memory
}
