//! The chain: one digest that stands for a store's whole history.
//!
//! Every write is hashed into it. Two stores with the same revision and the same chain have had the same writes; a
//! store that was restored from a copy and then written to reaches the old revision numbers with another chain, by
//! which a sidecar recognises the restore.

use sha2::{Digest, Sha256};

use super::key::Key;

/// The chain of an empty store.
pub(super) fn genesis(store_id: &str) -> String {
    hex::encode(Sha256::digest(store_id.as_bytes()))
}

/// The chain after one more change.
pub(super) fn link(previous: &str, revision: u64, op: &str, key: &Key, etag: &str) -> String {
    let ids = key.ids();
    let revision = revision.to_string();
    let parts = [
        previous,
        &revision,
        op,
        key.kind(),
        ids.tenant_id.unwrap_or_default(),
        ids.policy_id.unwrap_or_default(),
        ids.id.unwrap_or_default(),
        etag,
    ];
    digest_of(&parts.map(str::as_bytes))
}

/// The digest of several parts in their order.
pub(super) fn digest_of(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    for part in parts {
        // With its length in front, the boundary between two parts cannot be moved.
        digest.update((part.len() as u64).to_be_bytes());
        digest.update(part);
    }
    hex::encode(digest.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::{PolicyId, TenantId};

    fn key(tenant: &str, policy: &str) -> Key {
        Key::Policy {
            tenant: TenantId::parse(tenant).unwrap(),
            policy: PolicyId::parse(policy).unwrap(),
        }
    }

    #[test]
    fn every_part_of_a_change_matters_and_parts_do_not_run_together() {
        let first = genesis("a");
        assert_eq!(
            first,
            "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb"
        );
        let link_of = |previous: &str, revision, op, key: &Key, etag| link(previous, revision, op, key, etag);
        let base = link_of(&first, 1, "put", &key("ab", "c"), "\"x\"");
        assert_eq!(base.len(), 64);
        for other in [
            link_of(&genesis("b"), 1, "put", &key("ab", "c"), "\"x\""),
            link_of(&first, 2, "put", &key("ab", "c"), "\"x\""),
            link_of(&first, 1, "delete", &key("ab", "c"), "\"x\""),
            link_of(&first, 1, "put", &key("a", "bc"), "\"x\""),
            link_of(&first, 1, "put", &key("ab", "c"), "\"y\""),
        ] {
            assert_ne!(base, other);
        }
        assert_eq!(base, link_of(&first, 1, "put", &key("ab", "c"), "\"x\""));
    }
}
