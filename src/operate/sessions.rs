//! Sticky sessions.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;

use super::operator::{Limit, Operator};
use crate::{
    clock::Timestamp,
    decide::memory::{Session, SessionView},
    policy::TenantId,
};

/// How many sticky sessions there are, and those of one tenant.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct SessionList {
    /// Of all tenants.
    pub sessions: usize,
    /// How many had to go for others since the start.
    pub evicted: u64,
    /// The tenant that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tenant_id: Option<TenantId>,
    /// The sessions of the tenant that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub list: Option<Vec<SessionView>>,
}

/// How many sessions were forgotten.
#[derive(Debug, Clone, Copy, Serialize, JsonSchema)]
pub struct SessionsForgotten {
    /// Always `true`.
    pub ok: bool,
    /// Number of sessions that were removed.
    pub forgotten: usize,
}

impl Operator {
    /// How many sessions there are, and up to `limit` of those of `tenant`.
    pub fn sessions(&self, tenant: Option<TenantId>, limit: Limit) -> SessionList {
        let table = &self.memory.sticky;
        SessionList {
            sessions: table.len(),
            evicted: table.evicted(),
            list: tenant.as_ref().map(|tenant| {
                let sessions = table.list(tenant, limit.get()).into_iter();
                sessions.map(on_the_wall).collect()
            }),
            tenant_id: tenant,
        }
    }

    /// Forgets the session of a tenant that has this value, or all sessions of the tenant.
    pub fn forget_sessions(&self, tenant: &TenantId, session: Option<String>) -> SessionsForgotten {
        let table = &self.memory.sticky;
        let forgotten = match session.map(Value::String) {
            Some(value) => usize::from(table.clear(Session {
                tenant,
                value: &value,
            })),
            None => table.clear_tenant(tenant),
        };
        tracing::info!(
            tenant = tenant.as_str(),
            forgotten,
            "Sessions were forgotten on request."
        );
        SessionsForgotten { ok: true, forgotten }
    }
}

/// With the times as the system's clock would have said them.
fn on_the_wall(session: SessionView) -> SessionView {
    let shown = |seconds: u64| {
        let at = Timestamp::from_unix_ms(seconds.saturating_mul(1_000));
        at.on_the_wall().unix_ms / 1_000
    };
    SessionView {
        last_set: shown(session.last_set),
        expires_at: shown(session.expires_at),
        ..session
    }
}
