//! Keys that had another name in earlier versions. Each is an error that names the new key, so that no limit and no
//! listener silently returns to its default.

use serde_json::Value;

use super::mistake::Mistake;

/// The old key and the new one. A section stands for every key below it.
pub(super) const RENAMED: &[(&str, &str)] = &[
    ("decide.dry_run_by_metadata", "decide.allow_metadata_dry_run"),
    ("decide.providers", "decide.max_providers"),
    ("decide.rate_limit_buckets", "decide.max_rate_limit_buckets"),
    ("decide.sticky_sessions", "decide.max_sticky_sessions"),
    (
        "extensions.compile_memory_bytes",
        "extensions.max_compile_memory_bytes",
    ),
    ("extensions.instances", "extensions.max_instances"),
    ("extensions.module_bytes", "extensions.max_module_bytes"),
    ("extensions.quarantine_max_ms", "extensions.max_quarantine_ms"),
    ("extensions.slow_queue", "extensions.max_queued_calls"),
    ("extensions.slow_threads", "extensions.worker_threads"),
    ("heir.answer_bytes", "heir.max_answer_bytes"),
    ("heir.breaker.failures", "heir.breaker.failure_threshold"),
    ("heir.breaker.successes", "heir.breaker.success_threshold"),
    ("heir.pool.idle", "heir.pool.max_idle"),
    ("heir.pool.max", "heir.pool.max_requests"),
    ("heir.retry.attempts", "heir.retry.max_attempts"),
    ("limits.body_bytes", "limits.max_body_bytes"),
    ("limits.connections", "limits.max_connections"),
    ("limits.header_bytes", "limits.max_header_bytes"),
    ("limits.idle_ms", "limits.idle_timeout_ms"),
    ("limits.in_flight", "limits.max_waiting_requests"),
    ("limits.read_ms", "limits.read_timeout_ms"),
    ("metrics.tenant_labels", "metrics.max_tenant_labels"),
    ("ops", "admin"),
    ("refresh.wait_ms", "refresh.long_poll_timeout_ms"),
    ("share_listen", "reuse_port"),
    ("shutdown.drain_ms", "shutdown.drain_timeout_ms"),
];

/// The new name of a key, if it has one.
pub(super) fn new_name(path: &str) -> Option<&'static str> {
    RENAMED.iter().find(|(old, _)| *old == path).map(|(_, new)| *new)
}

/// A mistake for each old key in the file; the check against the schema does not report them again.
pub(super) fn in_file(document: &Value) -> Vec<Mistake> {
    RENAMED
        .iter()
        .filter(|(old, _)| document.pointer(&format!("/{}", old.replace('.', "/"))).is_some())
        .map(|(old, new)| renamed(old, old, new))
        .collect()
}

/// The mistake of writing `old`, a key or a variable, where `new` is meant.
pub(super) fn renamed(key: &str, old: &str, new: &str) -> Mistake {
    Mistake::new(
        key,
        format!("{old} is now called {new}"),
        format!("rename it to {new}"),
    )
}
