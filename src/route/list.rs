//! A tenant's policies, as HEIR has them now, or as they are remembered.

use std::{sync::Arc, time::Instant};

use http::{HeaderValue, StatusCode, header};

use super::{headers::STALE, lookup::describe, router::Router};
use crate::{
    failure::{ErrorCode, Failure},
    heir::{HeirError, Level, listed},
    intake::{Client, Room, expired},
    policy::{PolicyId, TenantId},
    refresh::RefreshError,
    respond::{self, JSON, Response},
    snapshot::{Coverage, Found},
};

/// Number of policies of one tenant above which the platform wants to be warned.
const MANY: usize = 100;

/// What is around the elements.
const FRAME: &str = "{\"policies\":[]}";

/// The longest that a policy can be as an element: its document, with its id put in.
fn longest_element(id: &PolicyId, found: &Found<'_>) -> usize {
    found.policy.document.bytes().len() + id.as_str().len() + "\"policy_id\":\"\",,".len()
}

impl Router {
    /// Answers with the list, which is made elsewhere: for a large tenant that takes longer than a lookup may wait.
    pub(super) async fn list(
        self: &Arc<Self>,
        tenant: TenantId,
        client: Client,
        started: Instant,
    ) -> Result<Response, Failure> {
        let (place, this) = (self.waiting.place(&tenant)?, self.clone());
        self.elsewhere(async move {
            let room = this.buffered.room(client);
            let listed = this.refresh_and_list(&tenant, room, started).await?;
            Ok(listed.map(|body| body.holding(place)))
        })
        .await
    }

    /// Refreshes the tenant from HEIR and answers from memory, so that queued writes are in the list.
    async fn refresh_and_list(
        &self,
        tenant: &TenantId,
        mut room: Room,
        started: Instant,
    ) -> Result<Response, Failure> {
        let refreshed = match &self.upstream {
            Some(upstream) => {
                // A snapshot that arrives byte by byte may take for ever; the caller of a list does not wait that long.
                let after = upstream.client.caller_timeout();
                let refreshed = tokio::time::timeout(after, upstream.refresher.refresh_list(tenant)).await;
                Some(refreshed.unwrap_or_else(|_elapsed| Err(HeirError::Timeout { after }.into())))
            }
            None => None,
        };
        let snapshot = self.store.load_full();
        let failed = match refreshed {
            Some(Err(error)) => {
                tracing::warn!(
                    tenant = tenant.as_str(),
                    error = error.chain(),
                    "A list is answered from memory."
                );
                let known =
                    snapshot.coverage() == Coverage::Whole || snapshot.tenant(tenant.as_str()).is_some();
                match error {
                    RefreshError::Heir(error) if !known => return Err(error.failure()),
                    _ => true,
                }
            }
            Some(Ok(_)) | None => false,
        };
        let (age_ms, age) = self
            .store
            .freshness()
            .of_tenant(Instant::now().max(started), tenant.as_str());
        if self.store.freshness().refuses(age) {
            return Err(expired(age_ms));
        }
        let policies = snapshot
            .tenant(tenant.as_str())
            .map(|t| t.sorted())
            .unwrap_or_default();
        let length = FRAME.len()
            + policies
                .iter()
                .map(|(id, found)| longest_element(id, found))
                .sum::<usize>();
        room.grow(length)?;
        let mut body = Vec::with_capacity(length);
        body.extend_from_slice(b"{\"policies\":[");
        if policies.len() > MANY {
            tracing::warn!(
                tenant = tenant.as_str(),
                policies = policies.len(),
                "A tenant has many policies."
            );
        }
        for (index, (id, found)) in policies.iter().enumerate() {
            if index > 0 {
                body.push(b',');
            }
            let document = std::str::from_utf8(found.policy.document.bytes()).unwrap_or_default();
            match listed(document, "policy_id", id.as_str()) {
                Ok(element) => body.extend_from_slice(element.as_bytes()),
                Err(error) => return Err(Failure::new(ErrorCode::InternalError, error.to_string())),
            }
        }
        body.extend_from_slice(b"]}");
        let response = respond::with_body(StatusCode::OK, JSON, body.into());
        let mut response = response.map(|body| body.holding(room));
        let headers = response.headers_mut();
        describe(headers, snapshot.position().revision, age_ms, age);
        let level = self
            .upstream
            .as_ref()
            .and_then(|upstream| upstream.refresher.status().level);
        if level == Some(Level::Single) {
            let warning = "299 beamline-sidecar \"HEIR cannot list: these are the policies seen so far\"";
            headers.insert(header::WARNING, HeaderValue::from_static(warning));
        }
        if failed {
            headers.insert(STALE, HeaderValue::from_static("true"));
            headers.insert(
                header::WARNING,
                HeaderValue::from_static("111 beamline-sidecar \"Revalidation Failed\""),
            );
        }
        Ok(response)
    }
}
