//! A policy that HEIR was asked for by itself and does not have any more.

use std::sync::Arc;

use super::{key::Key, pins::FetchStart, policy::Policy};

/// A policy that HEIR says it does not have any more.
#[derive(Debug)]
pub struct Gone {
    /// Tenant and policy.
    pub key: Key,
    /// When HEIR was asked.
    pub start: FetchStart,
    /// What memory had then.
    pub policy: Arc<Policy>,
}
