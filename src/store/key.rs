//! The keys of the store's records.

use crate::policy::{InvalidId, PolicyId, TenantId, check_id};

/// The id of an entry in the extension registry; the same grammar as a policy's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ExtensionId(String);

impl ExtensionId {
    pub(super) fn parse(text: &str) -> Result<Self, InvalidId> {
        check_id(text).map(|()| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

/// The key of a record with revisions: one that can be written and listed, and is part of the snapshot and the changes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Policy { tenant: TenantId, policy: PolicyId },
    Extension(ExtensionId),
}

/// A key as the columns of the `changes` table.
#[derive(Debug, Clone, Copy)]
pub(super) struct Ids<'a> {
    pub(super) tenant_id: Option<&'a str>,
    pub(super) policy_id: Option<&'a str>,
    pub(super) id: Option<&'a str>,
}

impl Key {
    /// The `kind` on the wire.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Policy { .. } => "policy",
            Self::Extension(_) => "extension",
        }
    }

    pub(super) fn ids(&self) -> Ids<'_> {
        match self {
            Self::Policy { tenant, policy } => Ids {
                tenant_id: Some(tenant.as_str()),
                policy_id: Some(policy.as_str()),
                id: None,
            },
            Self::Extension(id) => Ids {
                tenant_id: None,
                policy_id: None,
                id: Some(id.as_str()),
            },
        }
    }
}

/// The digest that names a module: SHA-256 in 64 lower-case hex digits.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ModuleDigest(String);

impl ModuleDigest {
    pub(super) fn parse(text: &str) -> Option<Self> {
        let valid = text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        valid.then(|| Self(text.to_owned()))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}
