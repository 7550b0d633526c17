//! The names that policies are kept under.

use std::collections::BTreeMap;

use crate::policy::{PolicyId, Problem, TenantId};

/// A policy's full name.
pub type Key = (TenantId, PolicyId);

/// Problems by the policy that has them.
pub type Problems = BTreeMap<Key, Vec<Problem>>;
