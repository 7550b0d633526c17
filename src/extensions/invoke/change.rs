//! A change of an extension's health, counted and logged.

use crate::{
    clock::Timestamp,
    extensions::{health::Change, metrics::ExtensionMetrics, registry::Extension},
};

/// Counts a change, and logs it where not too many were logged of this extension lately.
pub(super) fn report(
    metrics: &ExtensionMetrics,
    extension: &Extension,
    change: Change,
    now: Timestamp,
    tenant_id: &str,
) {
    let id = &*extension.id;
    let blocked = extension.health.blocked(now);
    let reason = match change {
        Change::BreakerOpened => Some("breaker_open"),
        Change::Quarantined { .. } | Change::QuarantinedForAll { .. } => Some("quarantined"),
        Change::BreakerClosed | Change::Released => None,
    };
    metrics.blocked(id, blocked, reason);
    if !extension.health.may_tell_change(now) {
        return;
    }
    let ms = |pause: std::time::Duration| u64::try_from(pause.as_millis()).unwrap_or(u64::MAX);
    match change {
        Change::BreakerOpened => {
            tracing::warn!(
                extension_id = id,
                tenant_id,
                "The breaker of an extension opened for a tenant."
            );
        }
        Change::Quarantined { pause } => tracing::warn!(
            extension_id = id,
            tenant_id,
            pause_ms = ms(pause),
            "An extension keeps crashing on the input of a tenant and is quarantined for that tenant."
        ),
        Change::QuarantinedForAll { pause } => tracing::warn!(
            extension_id = id,
            tenant_id,
            pause_ms = ms(pause),
            "An extension keeps crashing on the input of several tenants and is quarantined for all for which it never worked."
        ),
        Change::BreakerClosed | Change::Released => {
            tracing::info!(
                extension_id = id,
                tenant_id,
                "An extension works again for a tenant."
            );
        }
    }
}
