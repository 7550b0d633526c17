//! What an operator looks at, and the refresh they can ask for.

use std::time::Instant;

use http::StatusCode;
use http_body_util::{BodyExt, Limited};
use hyper::body::Incoming;
use serde_json::{Value, json};

use super::{Admin, Query};
use crate::{
    failure::{ErrorCode, Failure},
    refresh::RefreshError,
    respond::{self, Response},
    snapshot::Snapshot,
};

/// Time for a body to arrive.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// Problems that are listed; their number is told in any case.
const MOST_PROBLEMS: usize = 1_000;

impl Admin {
    pub(super) fn snapshot(&self) -> Response {
        let snapshot = self.store.load_full();
        let status = self.refresher.as_ref().map(|refresher| refresher.status());
        let mut page = position(&snapshot, self);
        page["policies"] = snapshot
            .tenants()
            .map(|(_, tenant)| tenant.size)
            .sum::<usize>()
            .into();
        page["tenants"] = snapshot.tenants().count().into();
        page["extensions"] = snapshot.extensions().len().into();
        page["bytes"] = snapshot
            .tenants()
            .map(|(_, tenant)| tenant.bytes)
            .sum::<usize>()
            .into();
        page["generation"] = snapshot.generation().into();
        page["ready"] = json!(self.readiness.status());
        page["refresh"] = json!(status);
        page["heir"] = match &self.client {
            Some(client) => json!({
                "url": client.base().to_string(),
                "up": client.is_up(),
                "breaker": client.breaker_state().as_str(),
            }),
            None => Value::Null,
        };
        let problems = snapshot.problems().iter().chain(snapshot.config_problems());
        let problems = problems.take(MOST_PROBLEMS).map(|((tenant, policy), problems)| {
            json!({"tenant_id": tenant, "policy_id": policy, "problems": problems})
        });
        page["problems"] = problems.collect();
        page["warning_count"] = snapshot
            .tenants()
            .map(|(_, tenant)| tenant.noted)
            .sum::<usize>()
            .into();
        let noted = snapshot.tenants().filter(|(_, tenant)| tenant.noted > 0);
        let noted = noted.flat_map(|(id, tenant)| {
            let policies = tenant
                .sorted()
                .into_iter()
                .filter(|(_, found)| found.policy.is_noted());
            policies.map(move |(policy_id, found)| {
                json!({"tenant_id": id, "policy_id": policy_id, "problems": found.policy.notes()})
            })
        });
        page["warnings"] = noted.take(MOST_PROBLEMS).collect();
        page["bad_files"] = json!(
            self.directory
                .as_ref()
                .map(|dir| dir.bad_files())
                .unwrap_or_default()
        );
        page["extension_problems"] = json!(snapshot.registry().problems());
        page["extensions_ready"] = snapshot.registry().len().into();
        page["problem_count"] = (snapshot.problems().len() + snapshot.config_problems().len()).into();
        respond::json(StatusCode::OK, &page)
    }

    pub(super) fn policies(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let snapshot = self.store.load_full();
        let Some(tenant) = query.value("tenant") else {
            let mut tenants: Vec<_> = snapshot.tenants().collect();
            tenants.sort_unstable_by_key(|(id, _)| *id);
            let list = tenants
                .iter()
                .map(|(id, tenant)| json!({"tenant_id": id, "policies": tenant.size}));
            return Ok(respond::json(
                StatusCode::OK,
                &json!({"tenants": list.collect::<Value>()}),
            ));
        };
        let Some(known) = snapshot.tenant(tenant) else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such tenant in memory",
            ));
        };
        let policies = known.sorted().into_iter().map(|(id, found)| {
            let document = &found.policy.document;
            json!({
                "policy_id": id,
                "etag": document.etag(),
                "revision": found.policy.revision,
                "bytes": document.bytes().len(),
                "source": found.source(snapshot.origin()),
            })
        });
        Ok(respond::json(
            StatusCode::OK,
            &json!({"tenant_id": tenant, "policies": policies.collect::<Value>()}),
        ))
    }

    /// Refreshes and answers with the revision reached.
    pub(super) async fn refresh(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let Some(refresher) = &self.refresher else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "there is no HEIR to refresh from",
            ));
        };
        let confirm = match query.value("confirm") {
            None | Some("false") => false,
            Some("true") => true,
            Some(_) => {
                return Err(Failure::new(
                    ErrorCode::InvalidRequest,
                    "confirm is true or false",
                ));
            }
        };
        match refresher.refresh_now(confirm).await {
            Ok(outcome) => {
                let mut page = position(&self.store.load(), self);
                page["ok"] = true.into();
                page["outcome"] = json!(outcome);
                Ok(respond::json(StatusCode::OK, &page))
            }
            Err(RefreshError::Heir(error)) => Err(error.failure()),
            Err(RefreshError::Withheld(held)) => Err(Failure::new(ErrorCode::Conflict, held.to_string())),
        }
    }

    pub(super) fn log(&self) -> Response {
        respond::json(StatusCode::OK, &json!({"filter": self.logs.filter()}))
    }

    /// Changes the filter until the next change of the configuration or start. The body is the filter itself.
    pub(super) async fn set_log(&self, body: Incoming) -> Result<Response, Failure> {
        let refuse = |reason: String| Failure::new(ErrorCode::InvalidRequest, reason);
        let body = tokio::time::timeout(PATIENCE, Limited::new(body, 4096).collect())
            .await
            .map_err(|_elapsed| refuse("the filter did not arrive in time".to_owned()))?
            .map_err(|error| refuse(error.to_string()))?
            .to_bytes();
        let filter = std::str::from_utf8(&body)
            .map_err(|error| refuse(error.to_string()))?
            .trim();
        self.logs.set_filter(filter).map_err(refuse)?;
        tracing::info!(filter, "The log filter was changed.");
        Ok(self.log())
    }
}

/// Where the snapshot stands.
fn position(snapshot: &Snapshot, admin: &Admin) -> Value {
    let (age_ms, freshness) = admin.store.freshness().at(Instant::now());
    json!({
        "level": admin.refresher.as_ref().and_then(|refresher| refresher.status().level),
        "coverage": snapshot.coverage(),
        "revision": snapshot.position().revision,
        "chain": snapshot.position().chain.as_deref(),
        "age_ms": age_ms,
        "freshness": freshness,
        "source": snapshot.origin(),
    })
}
