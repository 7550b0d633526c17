//! Whether a 404 of HEIR's is about one policy, or about everything that it is asked.
//!
//! What stands before a HEIR, or a HEIR that is being put up, answers 404 to every path. Taken for the absence of a
//! policy, that would make a conflict of a write that waits, and of a waiting deletion one that is done.

use bytes::Bytes;
use http::{HeaderMap, Method, StatusCode};
use serde::Deserialize;

use crate::{
    heir::{Admission, HeirCall, HeirClient, HeirError, wire},
    snapshot::{Key, SnapshotStore},
};

/// Most other policies that HEIR is asked for.
const MOST_WITNESSES: usize = 3;

/// Whether HEIR, which has just answered 404 for a policy, answers otherwise for another one that it is known to have, or
/// for the tenant's list. Where it has neither, its error has to say what was not found.
pub(super) async fn is_of_this_policy(
    client: &HeirClient,
    store: &SnapshotStore,
    key: &Key,
) -> Result<bool, HeirError> {
    for (path, etag) in witnesses(store, key) {
        let limit = client.max_answer_bytes();
        let answer = client
            .fetch_once(
                HeirCall::Get,
                Admission::Breaker,
                &path,
                Some(&etag),
                limit,
                client.timeout(),
            )
            .await;
        match answer {
            Ok(_) => return Ok(true),
            Err(error) if error.is_away() => return Err(error),
            // This one may have gone as well, or may not be read with this token.
            Err(_) => {}
        }
    }
    let list = format!("/api/v1/policies/{}", key.0);
    match client
        .open(HeirCall::List, Admission::Breaker, &list, None, client.timeout())
        .await
    {
        Ok(_) => return Ok(true),
        Err(error) if error.is_away() => return Err(error),
        Err(_) => {}
    }
    let path = wire::policy_path(&key.0, &key.1);
    let replied = client
        .write(HeirCall::Get, Method::GET, &path, HeaderMap::new(), Bytes::new())
        .await?;
    Ok(replied.status == StatusCode::NOT_FOUND && names_what_is_absent(&replied.body))
}

/// Paths and tags of other policies that HEIR had when it was last heard of, those of the same tenant first.
fn witnesses(store: &SnapshotStore, key: &Key) -> Vec<(String, http::HeaderValue)> {
    let snapshot = store.load();
    let own = snapshot.tenants().filter(|(tenant, _)| **tenant == key.0);
    let others = snapshot.tenants().filter(|(tenant, _)| **tenant != key.0);
    own.chain(others)
        .flat_map(|(tenant, t)| t.policies.iter().map(move |(id, entry)| (tenant, id, entry)))
        .filter(|(tenant, id, _)| (*tenant, *id) != (&key.0, &key.1))
        .filter_map(|(tenant, id, entry)| {
            let etag = entry.heir.as_ref()?.document.etag().header();
            Some((wire::policy_path(tenant, id), etag))
        })
        .take(MOST_WITNESSES)
        .collect()
}

/// Whether an error body is a store's own: it says with a code that the policy was not found.
fn names_what_is_absent(body: &[u8]) -> bool {
    #[derive(Deserialize)]
    struct Answer {
        error: Error,
    }
    #[derive(Deserialize)]
    struct Error {
        code: String,
    }
    serde_json::from_slice::<Answer>(body)
        .is_ok_and(|answer| matches!(answer.error.code.as_str(), "not_found" | "policy_not_found"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_stores_own_error_names_what_is_absent() {
        for (body, names) in [
            (
                r#"{"ok":false,"error":{"code":"not_found","message":"no"}}"#,
                true,
            ),
            (r#"{"error":{"code":"policy_not_found"}}"#, true),
            (r#"{"error":{"code":"internal"}}"#, false),
            (r#"{"error":"not_found"}"#, false),
            ("default backend - 404", false),
            ("", false),
        ] {
            assert_eq!(names_what_is_absent(body.as_bytes()), names, "{body}");
        }
    }
}
