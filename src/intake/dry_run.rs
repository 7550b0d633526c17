//! A dry run: what would be decided, without anything being remembered or called.

use schemars::JsonSchema;
use serde_json::{Map, Value, value::RawValue};

use super::{decide::Explain, entry::Intake, find::Found};
use crate::{
    clock,
    decide::{
        Context, DecideContext, DecisionId, DecisionInput, Effects, Executed, Explaining, Explanation,
        Message, NoExtensions, Provenance, Seed, decide_now, detail_level,
    },
    failure::{ErrorCode, Failure},
    policy::{self, DetailLevel, PolicyId, ProviderId, RoutingPolicy, Severity, TenantId, exact},
    write::invalid_policy,
};

/// What a dry run decided.
#[derive(Debug)]
pub struct DryRun {
    /// The chosen provider.
    pub provider: ProviderId,
    /// Why it was chosen; `reason` on the wire.
    pub reason: &'static str,
    /// `priority` on the wire.
    pub priority: u8,
    /// The extensions that were run, in order.
    pub executed_extensions: Vec<Executed>,
    /// The payload as the pre-processors left it; with the explanation, to be written as [`exact`] integers are.
    pub final_payload: Value,
    /// How the decision came about.
    pub explanation: Explanation,
}

/// The policy that is tried.
enum Tried {
    Stored(Found),
    Sent(Box<RoutingPolicy>),
}

impl Intake {
    /// Tries the policy that the request sends, or else the one that it names.
    ///
    /// # Errors
    /// A request of another form, mistakes in the policy that was sent, and what a decision fails with.
    pub async fn dry_run(
        &self,
        body: &[u8],
        seed: Option<Seed>,
        explain: Explain,
    ) -> Result<DryRun, Failure> {
        let request = DryRunRequest::parse(body)?;
        let tried = match &request.policy {
            Some(document) => Tried::Sent(Box::new(sent(document)?)),
            None => Tried::Stored(self.find_and_read(&request.tenant, &request.policy_id).await?),
        };
        let (policy, provenance) = match &tried {
            Tried::Stored(found) => (
                found.policy.routing(),
                Provenance {
                    policy_revision: found.policy.revision,
                    snapshot_revision: found.stamp.revision,
                    ..Provenance::default()
                },
            ),
            Tried::Sent(policy) => (&**policy, Provenance::default()),
        };
        let input = DecisionInput {
            tenant: &request.tenant,
            policy_id: &request.policy_id,
            context: &request.context,
            message: Message {
                payload: request.payload.as_deref(),
                ..Message::default()
            },
        };
        let at = DecideContext {
            id: DecisionId(fastrand::u128(..)),
            seed: seed.unwrap_or_else(|| Seed(fastrand::u64(..))),
            now: clock::now(),
            later: &clock::now,
            wall_ahead_ms: clock::ahead_ms(),
            effects: Effects::None,
        };
        let decision = decide_now(policy, input, &self.rules, &self.memory, &NoExtensions, at)
            .result
            .map_err(|refusal| refusal.failure())?;
        let explaining = Explaining {
            decision: &decision,
            policy,
            input,
            at,
            memory: &self.memory,
            provenance,
        };
        // A dry run is made for its explanation: without a level in the request, it is whole.
        let (level, unknown_level) = match explain {
            Explain::At(level) => (level, None),
            Explain::IfContextAsks if !request.context.contains_key("detail_level") => {
                (DetailLevel::Verbose, None)
            }
            Explain::AtItsLevel | Explain::IfContextAsks => {
                detail_level(&request.context, policy, &self.rules)
            }
        };
        let mut explanation = explaining.explain(level, unknown_level);
        if let Tried::Stored(Found {
            broken: Some(broken), ..
        }) = &tried
        {
            explanation.warnings.push(broken.to_string());
        }
        let payload = decision.message.get("payload").cloned();
        Ok(DryRun {
            provider: decision.selection.provider.clone(),
            reason: decision.selection.how.reason(),
            priority: decision.selection.how.priority(),
            final_payload: payload.unwrap_or_else(|| request.payload_tree()),
            executed_extensions: decision.executed,
            explanation,
        })
    }
}

fn sent(document: &Value) -> Result<RoutingPolicy, Failure> {
    let Value::Object(document) = document else {
        return Err(Failure::new(
            ErrorCode::InvalidRequest,
            "policy must be an object",
        ));
    };
    let (policy, problems) = policy::read_exact(document.clone());
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(invalid_policy(&problems));
    }
    Ok(policy)
}

/// A request for a dry run.
#[derive(Debug, JsonSchema)]
pub struct DryRunRequest {
    #[schemars(rename = "tenant_id")]
    tenant: TenantId,
    policy_id: PolicyId,
    #[schemars(default)]
    context: Context,
    #[schemars(with = "Option<Value>")]
    payload: Option<Box<RawValue>>,
    /// Tried instead of the stored one.
    #[schemars(with = "Option<Context>")]
    policy: Option<Value>,
}

impl DryRunRequest {
    /// Reads `{tenant_id, policy_id, payload?, context?, policy?}`; a whole request for a decision has the same names.
    fn parse(body: &[u8]) -> Result<Self, Failure> {
        let refuse = |message: String| Failure::new(ErrorCode::InvalidRequest, message);
        let body: Map<String, Value> =
            exact::from_slice(body).map_err(|error| refuse(format!("Failed to parse JSON: {error}")))?;
        let text = |key: &str| body.get(key).and_then(Value::as_str);
        let payload = body
            .get("payload")
            .or_else(|| body.get("task").and_then(|task| task.get("payload")));
        let policy = body.get("policy").cloned();
        let (Some(tenant), Some(policy_id)) = (text("tenant_id"), text("policy_id")) else {
            return Err(refuse(
                "Missing required fields: tenant_id, policy_id, payload".to_owned(),
            ));
        };
        let tenant = TenantId::parse(tenant).map_err(|error| refuse(format!("tenant_id {error}")))?;
        let policy_id = PolicyId::parse(policy_id).map_err(|error| refuse(format!("policy_id {error}")))?;
        let mut context = Context::new();
        for key in ["constraints", "metadata", "context"] {
            match body.get(key) {
                None | Some(Value::Null) => {}
                Some(Value::Object(part)) => context.extend(part.clone()),
                Some(_) => return Err(refuse(format!("{key} must be an object"))),
            }
        }
        context.insert("tenant_id".into(), tenant.as_str().into());
        let payload = payload.map(serde_json::value::to_raw_value);
        let payload = payload.transpose().map_err(|error| refuse(error.to_string()))?;
        Ok(Self {
            tenant,
            policy_id,
            context,
            payload,
            policy,
        })
    }

    fn payload_tree(&self) -> Value {
        let payload = self.payload.as_deref().map(RawValue::get);
        payload
            .and_then(|text| serde_json::from_str(text).ok())
            .unwrap_or_default()
    }
}
