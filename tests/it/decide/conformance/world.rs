//! One tenant's world: a policy, a memory, scripted extensions, and a clock that a case moves.

use std::sync::Mutex;

use beamline_sidecar::{
    decide::{
        Answer, Call, DecideContext, Decision, DecisionId, DecisionInput, Effects, Explaining,
        ExtensionError, Extensions, Message, Provenance, Refusal, Rules, Scripted, Seed, Stage, Timestamp,
        audit_form, decide, detail_level,
        memory::{BreakerRecord, Memory, MemoryLimits, Session, State},
    },
    policy::{BreakerSettings, PolicyId, ProviderId, RoutingPolicy, TenantId, read_object},
};
use serde_json::{Map, Value, json};

use super::Object;

/// Where every case's clock begins.
pub(super) const START: Timestamp = Timestamp::from_unix_ms(1_800_000_000_000);

pub(super) struct World {
    pub(super) tenant: TenantId,
    pub(super) policy_id: PolicyId,
    pub(super) policy: RoutingPolicy,
    pub(super) memory: Memory,
    pub(super) rules: Rules,
    pub(super) extensions: Told,
    pub(super) now: Timestamp,
    decided: u64,
}

/// Extensions that answer as a case says, and remember that they were asked.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) script: Scripted,
    pub(super) all_fail: bool,
    called: Mutex<Vec<(Stage, String)>>,
}

impl Extensions for Told {
    async fn call(&self, call: &Call<'_>) -> Result<Answer, ExtensionError> {
        self.called.lock().unwrap().push((call.stage, call.id.to_owned()));
        if self.all_fail {
            return Err(ExtensionError::Invocation {
                reason: "told to fail".into(),
            });
        }
        self.script.call(call).await
    }
}

pub(super) fn memory() -> Memory {
    Memory::new(MemoryLimits {
        sessions: 10_000,
        buckets: 1_000,
        providers: 1_000,
    })
}

impl World {
    pub(super) fn of(document: &Object) -> Self {
        Self {
            tenant: TenantId::parse("default_tenant").unwrap(),
            policy_id: PolicyId::parse("default").unwrap(),
            policy: read_object(document).0,
            memory: memory(),
            rules: Rules::default(),
            extensions: Told::default(),
            now: START,
            decided: 0,
        }
    }

    pub(super) fn calls(&self) -> Vec<(Stage, String)> {
        self.extensions.called.lock().unwrap().clone()
    }

    /// Pins a session to a provider.
    pub(super) fn pin(&self, tenant: &TenantId, value: &Value, provider: &str) {
        let ttl = self
            .policy
            .sticky
            .as_ref()
            .map_or(3_600, |sticky| sticky.ttl_seconds);
        let session = Session { tenant, value };
        self.memory
            .sticky
            .store(session, &ProviderId::new(provider), ttl, self.now);
    }

    /// Puts a provider's breaker into a state, as of `ago_ms` before now.
    pub(super) fn set_breaker(&self, provider: &str, state: State, used: u32, ago_ms: u64) {
        let settings = self
            .policy
            .circuit_breaker
            .as_deref()
            .copied()
            .unwrap_or_default();
        let record = record(
            state,
            settings,
            used,
            Timestamp::from_unix_ms(self.now.unix_ms - ago_ms),
        );
        let provider = ProviderId::new(provider);
        self.memory
            .breakers
            .restore(self.tenant.clone(), provider, record, self.now);
    }

    /// Decides once, and shows everything about it under the names that cases use.
    pub(super) async fn decide(&mut self, context: &Object) -> Object {
        self.decided += 1;
        let mut context = context.clone();
        context.insert("tenant_id".into(), self.tenant.as_str().into());
        let calls_before = self.calls().len();
        let input = DecisionInput {
            tenant: &self.tenant,
            policy_id: &self.policy_id,
            context: &context,
            message: Message::default(),
        };
        let now = self.now;
        let later = move || now;
        let at = DecideContext {
            id: DecisionId(self.decided.into()),
            seed: Seed(self.decided.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            now,
            later: &later,
            wall_ahead_ms: 0,
            effects: Effects::Remembered,
        };
        let outcome = decide(
            &self.policy,
            input,
            &self.rules,
            &self.memory,
            &self.extensions,
            at,
        )
        .await;
        let mut shown = match &outcome.result {
            Ok(decision) => self.shown(decision, input, at),
            Err(refusal) => refused(refusal),
        };
        shown.insert(
            "extension_calls".into(),
            (self.calls().len() - calls_before).into(),
        );
        shown
    }

    fn shown(&self, decision: &Decision, input: DecisionInput<'_>, at: DecideContext<'_>) -> Object {
        let (level, unknown_level) = detail_level(input.context, &self.policy, &self.rules);
        let explaining = Explaining {
            decision,
            policy: &self.policy,
            input,
            at,
            memory: &self.memory,
            provenance: Provenance::default(),
        };
        let Ok(Value::Object(mut shown)) = serde_json::to_value(explaining.explain(level, unknown_level))
        else {
            return Map::new();
        };
        shown.entry("warnings").or_insert_with(|| json!([]));
        let extras = decision.extras(&self.policy);
        let mut metadata = input.context.clone();
        metadata.extend(extras.clone());
        for (key, value) in extras {
            shown.entry(key).or_insert(value);
        }
        let rule_id = metadata.get("fallback_rule_id").cloned();
        let (reason, priority) = audit_form(&decision.selection.how);
        shown.insert("audit".into(), json!({"reason": reason, "priority": priority}));
        shown.insert("metadata".into(), Value::Object(metadata));
        shown.insert("rule_id".into(), rule_id.unwrap_or_default());
        let latency = decision.expected_latency_ms(input, &self.memory);
        shown.insert("expected_latency_ms".into(), latency.into());
        shown.insert(
            "expected_cost".into(),
            decision.expected_cost(input, &self.memory).into(),
        );
        shown.insert("message".into(), decision.message.clone());
        shown.insert("executed_extensions".into(), json!(decision.executed));
        shown.insert("executed".into(), executed(&json!(decision.executed)));
        shown.insert("result".into(), "ok".into());
        shown.insert("error".into(), Value::Null);
        shown
    }
}

pub(super) fn record(
    state: State,
    settings: BreakerSettings,
    used: u32,
    changed_at: Timestamp,
) -> BreakerRecord {
    BreakerRecord {
        state,
        changed_at,
        settings,
        failure_count: 0,
        success_count: 0,
        half_open_calls: used,
    }
}

fn refused(refusal: &Refusal) -> Object {
    let details = refusal.details();
    let executed_extensions = details.get("executed_extensions").cloned();
    let mut shown = Map::new();
    shown.insert("error".into(), refusal.error_type().into());
    shown.insert("error_type".into(), refusal.error_type().into());
    shown.insert("wire_code".into(), refusal.code().as_str().into());
    shown.insert("message".into(), refusal.message().into());
    for (key, value) in &details {
        shown.insert(key.clone(), value.clone());
    }
    let result = match details.get("reason").and_then(Value::as_str) {
        Some(reason) => format!("{}: {reason}", refusal.error_type()),
        None => refusal.error_type().to_owned(),
    };
    shown.insert("result".into(), result.into());
    // Where the refusal has no reason of its own, the message is it.
    shown.entry("reason").or_insert_with(|| refusal.message().into());
    if let Some(list) = executed_extensions {
        shown.insert("executed".into(), executed(&list));
    }
    shown.insert("details".into(), Value::Object(details));
    shown
}

/// `pre normalize_text`, in the order of execution.
fn executed(list: &Value) -> Value {
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let list = list.as_array().into_iter().flatten();
    list.map(|entry| format!("{} {}", text(entry, "type"), text(entry, "id")))
        .collect()
}
