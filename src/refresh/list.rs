//! One tenant's policies where HEIR can list, but not give a snapshot.

use std::{collections::HashMap, hash::BuildHasher, time::Instant};

use bytes::Bytes;

use super::{
    detected::Detected,
    outcome::{Outcome, RefreshError},
    problem::log_problem,
    refresher::Refresher,
};
use crate::{
    heir::{Fetched, HeirCall, HeirError, wire},
    policy::{ETag, PolicyId, TenantId},
    snapshot::{Coverage, Guarded, Incoming, Key, Position, Scope, Snapshot, check},
};

impl Refresher {
    /// Takes one tenant's list and whatever in it is new.
    pub(super) async fn refresh_tenant(
        &self,
        detected: &mut Detected,
        tenant: &TenantId,
        confirm: bool,
    ) -> Result<Outcome, RefreshError> {
        let start = self.store.fetch_start();
        let base = self.store.load_full();
        let path = format!("/api/v1/policies/{tenant}");
        let fetched = self
            .client
            .fetch_once(
                HeirCall::List,
                &path,
                None,
                self.max_answer_bytes,
                self.client.timeout(),
            )
            .await;
        let fetched = match fetched {
            // Where other tenants can be listed, this is about the tenant and not about the call.
            Err(HeirError::Status {
                status: http::StatusCode::NOT_FOUND,
                ..
            }) if detected.lists => Fetched::Changed {
                body: Bytes::from_static(b"[]"),
                headers: http::HeaderMap::new(),
            },
            fetched => fetched?,
        };
        let Fetched::Changed { body, .. } = fetched else {
            return Ok(Outcome::Unchanged);
        };
        detected.lists = true;
        let began = Instant::now();
        let listed = parse_list(&body)?;
        let before = detected.fingerprints.get(tenant);
        let mut seen = HashMap::with_capacity(listed.len());
        let mut incoming = Incoming::new(
            Scope::Tenant(tenant.clone()),
            Coverage::Tenants,
            Position::default(),
        );
        for element in listed {
            let fingerprint = fingerprint(&element.bytes);
            let before = before
                .and_then(|before| before.get(&element.id))
                .filter(|(seen, _)| *seen == fingerprint)
                .map(|(_, etag)| etag);
            self.take_element(&base, tenant, &element, before, &mut incoming)
                .await?;
            // What could not be taken is fetched again.
            let taken = incoming.policies.get(tenant).and_then(|p| p.get(&element.id));
            if let Some(policy) = taken {
                seen.insert(element.id, (fingerprint, policy.document.etag().clone()));
            }
        }
        if is_same(&base, tenant, &incoming) {
            detected.fingerprints.insert(tenant.clone(), seen);
            return Ok(Outcome::Unchanged);
        }
        for (key, problems) in &incoming.problems {
            if base.problems().get(key) != Some(problems) {
                log_problem(key, problems);
            }
        }
        let guarded = Guarded {
            confirmed: confirm,
            ..self.config.load().guarded()
        };
        let activation = self.activate(start, incoming, guarded).await?;
        // Only now: an element that was not activated must not count as seen.
        detected.fingerprints.insert(tenant.clone(), seen);
        self.note_activation(began, activation);
        Ok(Outcome::Changed)
    }

    /// `unchanged`: the element looks as it did when the document with this tag was fetched for it.
    async fn take_element(
        &self,
        base: &Snapshot,
        tenant: &TenantId,
        element: &Element,
        unchanged: Option<&ETag>,
        incoming: &mut Incoming,
    ) -> Result<(), HeirError> {
        let key = (tenant.clone(), element.id.clone());
        if let Some(known) = base.heir(tenant.as_str(), element.id.as_str()) {
            // A write through here may have replaced that document, and another undone it in HEIR.
            if element.etag.as_ref().or(unchanged) == Some(known.document.etag()) {
                incoming.put(key, known.clone());
                return Ok(());
            }
        }
        // The element is the stored document if its bytes have the stored document's tag.
        if element
            .etag
            .as_ref()
            .is_some_and(|etag| *etag == ETag::of_bytes(&element.bytes))
        {
            incoming.take(base, key, element.bytes.clone(), element.etag.clone(), None);
            return Ok(());
        }
        let path = wire::policy_path(tenant, &element.id);
        let limit = self.policy_bytes as u64;
        match self
            .client
            .fetch_once(HeirCall::Get, &path, None, limit, self.client.timeout())
            .await
        {
            Ok(Fetched::Changed { body, headers }) => {
                let etag = Fetched::etag(&headers);
                match check(base, &key, body, etag, wire::revision(&headers)) {
                    Ok(policy) => incoming.put(key, policy),
                    Err(problems) => {
                        incoming.problems.insert(key, problems);
                    }
                }
            }
            Ok(Fetched::NotModified)
            | Err(HeirError::Status {
                status: http::StatusCode::NOT_FOUND,
                ..
            }) => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

struct Element {
    id: PolicyId,
    bytes: Bytes,
    etag: Option<ETag>,
}

/// A bare array of documents, or `{"policies":[…]}`; an element without an id that is one is left out.
fn parse_list(body: &[u8]) -> Result<Vec<Element>, HeirError> {
    let invalid = |error: serde_json::Error| HeirError::Invalid(format!("the list: {error}"));
    let list: wire::List<'_> = if body.trim_ascii_start().starts_with(b"[") {
        wire::List {
            policies: serde_json::from_slice(body).map_err(invalid)?,
            ..wire::List::default()
        }
    } else {
        serde_json::from_slice(body).map_err(invalid)?
    };
    let mut elements = Vec::with_capacity(list.policies.len());
    for raw in list.policies {
        let id = serde_json::from_str::<wire::Listed<'_>>(raw.get())
            .ok()
            .and_then(|e| PolicyId::parse(&e.policy_id).ok());
        let Some(id) = id else {
            tracing::warn!("HEIR listed a policy without a policy_id that is one; it is left out.");
            continue;
        };
        let etag = list.etags.get(id.as_str()).cloned();
        elements.push(Element {
            id,
            bytes: Bytes::copy_from_slice(raw.get().as_bytes()),
            etag,
        });
    }
    Ok(elements)
}

fn fingerprint(bytes: &[u8]) -> u64 {
    std::hash::BuildHasherDefault::<std::hash::DefaultHasher>::default().hash_one(bytes)
}

fn is_same(base: &Snapshot, tenant: &TenantId, incoming: &Incoming) -> bool {
    let Some(known) = base.tenant(tenant.as_str()).filter(|tenant| tenant.listed) else {
        return false;
    };
    let empty = hashbrown::HashMap::new();
    let new = incoming.policies.get(tenant).unwrap_or(&empty);
    let mut old = known
        .policies
        .iter()
        .filter_map(|(id, entry)| Some((id, entry.heir.as_ref()?)));
    let of_tenant = |(key, _): &(&Key, _)| key.0 == *tenant;
    let reported = base.problems().iter().filter(of_tenant);
    reported.eq(incoming.problems.iter())
        && old.all(|(id, policy)| match new.get(id) {
            Some(new) => std::sync::Arc::ptr_eq(new, policy),
            // Broken in HEIR: the last good version stays.
            None => incoming.problems.contains_key(&(tenant.clone(), id.clone())),
        })
        && new
            .keys()
            .all(|id| base.heir(tenant.as_str(), id.as_str()).is_some())
}
