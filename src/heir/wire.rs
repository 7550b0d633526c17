//! The documents of the HEIR API: what the embedded HEIR sends and the sidecar reads.
//!
//! Unknown fields are ignored everywhere, so that either side may be newer.

use std::borrow::Cow;

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::policy::{ETag, PolicyId, TenantId};

/// The `format` of the snapshot stream that this version writes and reads.
pub const SNAPSHOT_FORMAT: u32 = 1;

/// Header in which the embedded HEIR names the revision that a write made, or that a list was read at.
pub const REVISION_HEADER: &str = "x-heir-revision";

/// One line of `GET /api/v1/snapshot` (`application/x-ndjson`). Which fields are present depends on `kind`:
///
/// * `snapshot`, the first line: `format`, `revision`, and `chain` if the store keeps one;
/// * `policy`: `tenant_id`, `policy_id`, `revision`, `etag`, `policy`, and `policy_text` if needed;
/// * `extension`: `id`, `revision`, `extension`;
/// * `end`, the last line: `count` of the objects between.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Line<'a> {
    /// What the line or the change is about.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// [`SNAPSHOT_FORMAT`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub format: Option<u32>,
    /// HEIR's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// Digest over the whole history up to `revision`: equal chains mean the same history, so a store that was
    /// restored from a backup and written to again cannot pass for the one that was there before.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Cow<'a, str>>,
    /// The tenant of a policy.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<Cow<'a, str>>,
    /// The id of a policy.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<Cow<'a, str>>,
    /// The id of an extension.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// The entity tag of the stored document.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<Cow<'a, str>>,
    /// The document.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'a RawValue>,
    /// The document's exact text when it holds line breaks, which a line of this stream cannot: `policy` then has
    /// spaces in their place.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub policy_text: Option<Cow<'a, str>>,
    /// The extension's record.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<&'a RawValue>,
    /// Of the objects between the first line and the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u64>,
}

/// Answer of `GET /api/v1/changes?since=N&chain=C&wait_ms=W`.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Changes<'a> {
    /// The `since` that was asked for.
    pub from: u64,
    /// The revision reached by applying `changes` in order. May be less than the store's newest.
    pub to: u64,
    /// The chain at `from`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub from_chain: Option<Cow<'a, str>>,
    /// The chain at `to`.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub to_chain: Option<Cow<'a, str>>,
    /// The changes, oldest first.
    #[serde(borrow)]
    pub changes: Vec<Change<'a>>,
}

/// One change. `op` is `put` or `delete`; `kind` is `policy` or `extension`; the rest as in [`Line`].
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Change<'a> {
    /// `put` or `delete`.
    #[serde(borrow)]
    pub op: Cow<'a, str>,
    /// What the line or the change is about.
    #[serde(borrow)]
    pub kind: Cow<'a, str>,
    /// HEIR's revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u64>,
    /// The tenant of a policy.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<Cow<'a, str>>,
    /// The id of a policy.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub policy_id: Option<Cow<'a, str>>,
    /// The id of an extension.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub id: Option<Cow<'a, str>>,
    /// The entity tag of the stored document.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<Cow<'a, str>>,
    /// The document.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<&'a RawValue>,
    /// The document's exact text, where `policy` could not be it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub policy_text: Option<Cow<'a, str>>,
    /// The extension's record.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub extension: Option<&'a RawValue>,
}

/// `GET /api/v1/policies/{tenant}` as the embedded HEIR answers it: documents sorted by the bytes of their
/// `policy_id`, and beside them the entity tags of the stored documents.
///
/// A stored document need not hold its own id; an element of a list must, so an element can differ from what a
/// single `GET` answers. A reader that wants the stored bytes compares an element's tag with `etags` and fetches
/// what differs.
#[derive(Debug, Default, Deserialize)]
pub struct List<'a> {
    /// The documents.
    #[serde(borrow)]
    pub policies: Vec<&'a RawValue>,
    /// The entity tags of the stored documents, by policy id.
    #[serde(default)]
    pub etags: std::collections::HashMap<String, ETag>,
}

/// The fields of a listed document that a reader needs.
#[derive(Debug, Deserialize)]
pub struct Listed<'a> {
    /// The id of a policy.
    #[serde(borrow)]
    pub policy_id: Cow<'a, str>,
}

/// The path of one policy.
pub fn policy_path(tenant: &TenantId, policy: &PolicyId) -> String {
    format!("/api/v1/policies/{tenant}/{policy}")
}

/// The exact bytes of a document that came in `policy`, or in `policy_text` where the former had to be altered.
pub fn exact_bytes(policy: &RawValue, policy_text: Option<&str>) -> Bytes {
    Bytes::copy_from_slice(policy_text.unwrap_or(policy.get()).as_bytes())
}

/// The revision that an answer names in its header.
pub fn revision(headers: &http::HeaderMap) -> Option<u64> {
    headers.get(REVISION_HEADER)?.to_str().ok()?.parse().ok()
}

/// How to send a stored document inside one line: the text for `policy`, and `policy_text` if that differs.
///
/// Inside a JSON text a raw line break can only stand between tokens, where a space means the same.
pub fn inline(document: &str) -> (Cow<'_, str>, Option<&str>) {
    if document.bytes().any(|b| b == b'\n' || b == b'\r') {
        (document.replace(['\n', '\r'], " ").into(), Some(document))
    } else {
        // A value that is embedded by serde_json loses the white space around it.
        let trimmed = document.trim_matches([' ', '\t']);
        (
            trimmed.into(),
            (trimmed.len() != document.len()).then_some(document),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_survive_the_line_framing_byte_for_byte() {
        for text in ["{}", "{\n  \"a\": 1\r\n}\n", " {\"a\":\"x\\n\"}", "{\"a\":\t1}\t"] {
            let (inlined, exact) = inline(text);
            let raw = RawValue::from_string(inlined.trim().to_owned()).unwrap();
            let line = Line {
                kind: "policy".into(),
                policy: Some(&raw),
                policy_text: exact.map(Into::into),
                ..Line::default()
            };
            let sent = serde_json::to_string(&line).unwrap();
            assert!(!sent.contains('\n'));
            let read: Line<'_> = serde_json::from_str(&sent).unwrap();
            assert_eq!(
                exact_bytes(read.policy.unwrap(), read.policy_text.as_deref()),
                text.as_bytes()
            );
        }
    }
}
