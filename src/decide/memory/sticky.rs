//! Sticky sessions: which provider a session of a tenant was given.

use serde_json::Value;

use crate::{
    decide::Moment,
    policy::{ProviderId, TenantId},
};

/// A session's name: the tenant, and the context's value under the policy's `session_key`. Neither the policy nor the
/// key's name is part of it; values that are no texts count by their JSON.
#[derive(Debug, Clone, Copy)]
pub struct Session<'a> {
    pub tenant: &'a TenantId,
    pub value: &'a Value,
}

/// The table. A full one forgets the session that was used longest ago.
#[derive(Debug)]
pub struct StickyTable {}

impl StickyTable {
    pub fn new(_sessions: usize) -> Self {
        Self {}
    }

    /// The session's provider, if it is alive under both the time it was stored with and this one. An expired session
    /// is forgotten.
    pub fn lookup(&self, _session: Session<'_>, _ttl_seconds: i64, _now: Moment) -> Option<ProviderId> {
        todo!()
    }

    /// As `lookup`, changing nothing.
    pub fn peek(&self, _session: Session<'_>, _ttl_seconds: i64, _now: Moment) -> Option<ProviderId> {
        todo!()
    }

    /// Gives the session to a provider, from now on.
    pub fn store(&self, _session: Session<'_>, _provider: &ProviderId, _ttl_seconds: i64, _now: Moment) {
        todo!()
    }
}
