//! One tenant's policies where HEIR can list, but not give a snapshot.

use std::{collections::HashMap, hash::BuildHasher, time::Instant};

use bytes::Bytes;

use super::{
    detected::{Detected, Pass},
    outcome::{Outcome, RefreshError},
    problem::{log_problem, too_large, unreadable},
    refresher::Refresher,
};
use crate::{
    heir::{Fetched, HeirCall, HeirError, wire},
    policy::{ETag, PolicyId, TenantId},
    snapshot::{Coverage, FetchStart, Gone, Incoming, Key, Position, Scope, Snapshot, check},
};

impl Refresher {
    /// Takes one tenant's list and whatever in it is new. What is not in it any more is left in place and reported.
    pub(super) async fn take_list(
        &self,
        detected: &mut Detected,
        tenant: &TenantId,
        pass: Pass,
    ) -> Result<Listed, RefreshError> {
        let start = self.store.fetch_start();
        let base = self.store.load_full();
        let path = format!("/api/v1/policies/{tenant}");
        let fetched = self
            .client
            .fetch_once(
                HeirCall::List,
                pass.admission,
                &path,
                None,
                self.max_answer_bytes,
                self.client.timeout(),
            )
            .await?;
        let Fetched::Changed { body, .. } = fetched else {
            return Ok(Listed {
                outcome: Outcome::Unchanged,
                gone: Vec::new(),
            });
        };
        detected.lists = true;
        let began = Instant::now();
        let (listed, unnamed) = parse_list(&body)?;
        let before = detected.fingerprints.get(tenant);
        let mut seen = HashMap::with_capacity(listed.len());
        let mut incoming = Incoming::new(
            Scope::Tenant(tenant.clone()),
            Coverage::Tenants,
            Position::default(),
        );
        for element in listed {
            let fingerprint = fingerprint(&element.bytes);
            let before = before.and_then(|before| before.get(&element.id));
            let looks = match before {
                Some((seen, etag)) if *seen == fingerprint => Looks::AsBefore(etag),
                Some(_) => Looks::Otherwise,
                None => Looks::New,
            };
            self.take_element(&base, tenant, &element, looks, pass, &mut incoming)
                .await?;
            // What could not be taken is fetched again.
            let taken = incoming.policies.get(tenant).and_then(|p| p.get(&element.id));
            if let Some(policy) = taken {
                seen.insert(element.id, (fingerprint, policy.document.etag().clone()));
            }
        }
        let gone = keep_gone(&base, tenant, start, &mut incoming);
        if unnamed > 0 && !gone.is_empty() {
            return Err(HeirError::Invalid(format!(
                "{unnamed} elements of the list have no policy_id, and {} policies are not in it: they may be the same",
                gone.len()
            ))
            .into());
        }
        if is_same(&base, tenant, &incoming) {
            detected.fingerprints.insert(tenant.clone(), seen);
            return Ok(Listed {
                outcome: Outcome::Unchanged,
                gone,
            });
        }
        for (key, problems) in &incoming.problems {
            if base.problems().get(key) != Some(problems) {
                log_problem(key, problems);
            }
        }
        let guarded = self.config.load().guarded();
        let activation = self.activate(start, incoming, guarded).await?;
        // Only now: an element that was not activated must not count as seen.
        detected.fingerprints.insert(tenant.clone(), seen);
        self.note_activation(began, activation);
        Ok(Listed {
            outcome: Outcome::Changed,
            gone,
        })
    }

    /// What memory has of a tenant that HEIR does not know.
    pub(super) fn all_gone(&self, tenant: &TenantId) -> Vec<Gone> {
        let (start, base) = (self.store.fetch_start(), self.store.load_full());
        let mut nothing = Incoming::new(
            Scope::Tenant(tenant.clone()),
            Coverage::Tenants,
            Position::default(),
        );
        keep_gone(&base, tenant, start, &mut nothing)
    }

    async fn take_element(
        &self,
        base: &Snapshot,
        tenant: &TenantId,
        element: &Element,
        looks: Looks<'_>,
        pass: Pass,
        incoming: &mut Incoming,
    ) -> Result<(), HeirError> {
        let key = (tenant.clone(), element.id.clone());
        if let Some(known) = base.heir(tenant.as_str(), element.id.as_str()) {
            let document = &known.document;
            // A write through here may have replaced that document, and another undone it in HEIR.
            let is_known = match (&element.etag, looks) {
                // The same tag for what looks otherwise proves nothing.
                (_, Looks::Otherwise) | (None, Looks::New) => false,
                (Some(etag), _) => document.etag().comes_from(etag, document.bytes()),
                (None, Looks::AsBefore(etag)) => document.etag() == etag,
            };
            if is_known {
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
            match too_large(element.bytes.len() as u64, self.policy_bytes) {
                Some(problem) => {
                    incoming.problems.insert(key, vec![problem]);
                }
                None => incoming.take(base, key, element.bytes.clone(), element.etag.clone(), None),
            }
            return Ok(());
        }
        let path = wire::policy_path(tenant, &element.id);
        let limit = self.policy_bytes as u64;
        match self
            .client
            .fetch_once(
                HeirCall::Get,
                pass.admission,
                &path,
                None,
                limit,
                self.client.timeout(),
            )
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
            Ok(Fetched::NotModified) => {}
            // Deleted since it was listed, or nothing is found any more: the next list tells which.
            Err(error) if error.is_not_found() => {
                if let Some(known) = base.heir(tenant.as_str(), element.id.as_str()) {
                    incoming.put(key, known.clone());
                }
            }
            Err(error) if error.is_away() => return Err(error),
            // That policy's problem; the others go on.
            Err(error) => {
                incoming
                    .problems
                    .insert(key, vec![unreadable(&error, self.policy_bytes)]);
            }
        }
        Ok(())
    }
}

/// What came of one tenant's list.
pub(super) struct Listed {
    pub(super) outcome: Outcome,
    /// What memory has and the list has not.
    pub(super) gone: Vec<Gone>,
}

/// How an element of a list looks, beside how it did when its document was taken.
#[derive(Debug, Clone, Copy)]
enum Looks<'a> {
    /// The same; the document has this tag.
    AsBefore(&'a ETag),
    Otherwise,
    /// It was not in a list yet.
    New,
}

struct Element {
    id: PolicyId,
    bytes: Bytes,
    etag: Option<ETag>,
}

/// A bare array of documents, or `{"policies":[…]}`, and how many of its elements name no policy. They are left out.
///
/// # Errors
/// When it is no list, or one of another form: there are elements, and none is named.
fn parse_list(body: &[u8]) -> Result<(Vec<Element>, usize), HeirError> {
    let invalid = |error: serde_json::Error| HeirError::Invalid(format!("the list: {error}"));
    let list: wire::List<'_> = if body.trim_ascii_start().starts_with(b"[") {
        wire::List {
            policies: serde_json::from_slice(body).map_err(invalid)?,
            ..wire::List::default()
        }
    } else {
        serde_json::from_slice(body).map_err(invalid)?
    };
    let count = list.policies.len();
    let mut elements = Vec::with_capacity(count);
    for raw in list.policies {
        let id = serde_json::from_str::<wire::Listed<'_>>(raw.get())
            .ok()
            .and_then(|named| PolicyId::parse(&named.policy_id).ok());
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
    let unnamed = count - elements.len();
    if elements.is_empty() && unnamed > 0 {
        return Err(HeirError::Invalid(format!(
            "none of the {count} elements of the list has a policy_id"
        )));
    }
    Ok((elements, unnamed))
}

/// Puts back what the list does not have any more, and names it: that is removed only when all has been seen.
fn keep_gone(base: &Snapshot, tenant: &TenantId, start: FetchStart, incoming: &mut Incoming) -> Vec<Gone> {
    let known = base.tenant(tenant.as_str()).into_iter();
    let known = known.flat_map(|tenant| &tenant.policies);
    let gone: Vec<Gone> = known
        .filter_map(|(id, entry)| Some((id, entry.heir.as_ref()?)))
        .filter(|(id, _)| !incoming.mentions(tenant, id))
        .map(|(id, policy)| Gone {
            key: (tenant.clone(), id.clone()),
            start,
            policy: policy.clone(),
        })
        .collect();
    for Gone { key, policy, .. } in &gone {
        incoming.put(key.clone(), policy.clone());
    }
    gone
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
