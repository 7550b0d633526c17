//! `POST /api/v1/policies/dry-run`: what would be decided, without anything being remembered or called.

use std::sync::Arc;

use bytes::Bytes;
use http::{Request, StatusCode};
use hyper::body::Incoming;
use serde_json::{Map, Value, json, value::RawValue};

use super::{Router, failure, now, seed};
use crate::{
    decide::{
        Context, DecideContext, DecisionId, DecisionInput, Effects, Explaining, Message, NoExtensions,
        Provenance, Refusal, Seed, decide,
    },
    policy::{self, DetailLevel, PolicyId, RoutingPolicy, Severity, TenantId},
    respond::{self, ErrorCode, Failure, Response},
    route::slow::Job,
    snapshot::Policy,
    write::invalid_policy,
};

/// The policy that is tried.
enum Tried {
    Stored(Arc<Policy>, Option<u64>),
    Sent(Box<RoutingPolicy>),
}

impl Router {
    /// Reads the request, and answers it where the policy is in memory or in the request.
    pub(in crate::route) async fn dry_run(
        self: &Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response, Failure> {
        let (parts, body) = request.into_parts();
        let body = self.read(body).await?;
        let seed = seed(&parts.headers, self.decider.allow_seed)?;
        match self.try_policy(&body, seed, false).await? {
            Ok(response) => Ok(response),
            Err(key) => self.slow.run(self.clone(), Job::DryRun { key, seed, body }).await,
        }
    }

    /// A dry run of a policy that only HEIR knows.
    pub(in crate::route) async fn dry_run_with_heir(
        &self,
        key: &crate::snapshot::Key,
        seed: Seed,
        body: &Bytes,
    ) -> Result<Response, Failure> {
        self.fetch_for(key).await?;
        self.try_policy(body, seed, true)
            .await?
            .map_err(|(tenant, policy_id)| failure(&Refusal::PolicyNotFound { tenant, policy_id }))
    }

    async fn try_policy(
        &self,
        body: &Bytes,
        seed: Seed,
        asked: bool,
    ) -> Result<Result<Response, crate::snapshot::Key>, Failure> {
        let request = Trial::parse(body)?;
        let tried = match &request.policy {
            Some(document) => Tried::Sent(Box::new(sent(document)?)),
            None => match self.find(&request.tenant, request.policy_id.as_str(), asked)? {
                Some(found) => Tried::Stored(found.policy, found.snapshot_revision),
                None => return Ok(Err((request.tenant, request.policy_id))),
            },
        };
        let (policy, provenance) = match &tried {
            Tried::Stored(policy, snapshot_revision) => (
                policy.routing(),
                Provenance {
                    policy_revision: policy.revision,
                    snapshot_revision: *snapshot_revision,
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
            seed,
            now: now(),
            later: &now,
            effects: Effects::None,
        };
        let memory = &self.decider.memory;
        let decision = decide(policy, input, &self.decider.rules, memory, &NoExtensions, at)
            .await
            .result
            .map_err(|refusal| failure(&refusal))?;
        let explaining = Explaining {
            decision: &decision,
            policy,
            input,
            at,
            memory,
            provenance,
        };
        let result = json!({
            "decision": {
                "provider_id": decision.selection.provider,
                "reason": decision.selection.how.reason(),
                "priority": decision.selection.how.priority(),
            },
            "executed_extensions": decision.executed,
            "final_payload": decision.message.get("payload").cloned().unwrap_or_else(|| request.payload_tree()),
            "explanation": explaining.explain(DetailLevel::Verbose, None),
        });
        Ok(Ok(respond::json(
            StatusCode::OK,
            &json!({"ok": true, "result": result}),
        )))
    }
}

fn sent(document: &Value) -> Result<RoutingPolicy, Failure> {
    let Value::Object(document) = document else {
        return Err(Failure::new(
            ErrorCode::InvalidRequest,
            "policy must be an object",
        ));
    };
    let (policy, problems) = policy::read_object(document);
    if problems.iter().any(|problem| problem.severity == Severity::Error) {
        return Err(invalid_policy(&problems));
    }
    Ok(policy)
}

/// A request for a dry run.
struct Trial {
    tenant: TenantId,
    policy_id: PolicyId,
    context: Context,
    payload: Option<Box<RawValue>>,
    policy: Option<Value>,
}

impl Trial {
    /// Reads `{tenant_id, policy_id, payload?, context?, policy?}`; a whole request for a decision has the same names.
    fn parse(body: &Bytes) -> Result<Self, Failure> {
        let refuse = |message: String| Failure::new(ErrorCode::InvalidRequest, message);
        let body: Map<String, Value> =
            serde_json::from_slice(body).map_err(|error| refuse(format!("Failed to parse JSON: {error}")))?;
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
