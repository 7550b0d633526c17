//! What decisions remember, for the operator: sessions, providers, buckets; and how to reset them.

use std::borrow::Cow;

use http::StatusCode;
use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{Admin, Query};
use crate::{
    clock::now,
    decide::memory::{BreakerStatus, BucketKey, Session},
    failure::{ErrorCode, Failure},
    policy::{PolicyId, TenantId},
    respond::{self, Response},
};

/// Entries that a page shows where it is not asked for fewer.
const MOST: usize = 1_000;

impl Admin {
    /// The sessions of a tenant, or how many there are of all.
    pub(super) fn sessions(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let table = &self.memory.sticky;
        let mut page = json!({"sessions": table.len(), "evicted": table.evicted()});
        if query.value("tenant").is_some() {
            let tenant = tenant(query)?;
            page["tenant_id"] = json!(tenant);
            page["list"] = json!(table.list(&tenant, limit(query)?));
        }
        Ok(respond::json(StatusCode::OK, &page))
    }

    /// Forgets one session of a tenant, or all of them.
    pub(super) fn forget_sessions(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let tenant = tenant(query)?;
        let table = &self.memory.sticky;
        let forgotten = match decoded(query, "session")? {
            Some(value) => {
                let value = Value::String(value.into_owned());
                usize::from(table.clear(Session {
                    tenant: &tenant,
                    value: &value,
                }))
            }
            None => table.clear_tenant(&tenant),
        };
        tracing::info!(
            tenant = tenant.as_str(),
            forgotten,
            "Sessions were forgotten on request."
        );
        Ok(respond::json(
            StatusCode::OK,
            &json!({"ok": true, "forgotten": forgotten}),
        ))
    }

    /// Breakers, estimates and health of a tenant's providers.
    pub(super) fn providers(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let tenant = tenant(query)?;
        let memory = &self.memory;
        let breakers = memory.breakers.list(&tenant, now());
        let estimates = memory.estimates.list(&tenant);
        let unhealthy = memory.health.list(&tenant);
        let mut ids: Vec<_> = breakers
            .iter()
            .map(|(id, _)| id)
            .chain(estimates.iter().map(|(id, _)| id))
            .collect();
        ids.extend(&unhealthy);
        ids.sort_unstable();
        ids.dedup();
        let providers = ids.into_iter().map(|id| {
            let breaker = breakers.iter().find(|(known, _)| known == id);
            let estimate = estimates.iter().find(|(known, _)| known == id);
            json!({
                "provider_id": id,
                "breaker": breaker.map(|(_, status)| breaker_page(status)),
                "estimate": estimate.map(|(_, estimate)| estimate),
                "unhealthy": unhealthy.contains(id),
            })
        });
        let page = json!({"tenant_id": tenant, "providers": providers.collect::<Value>()});
        Ok(respond::json(StatusCode::OK, &page))
    }

    /// Closes, half opens or clears a provider's breaker, or forgets what its calls took.
    pub(super) fn change_provider(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let tenant = tenant(query)?;
        let provider = decoded(query, "provider")?.ok_or_else(|| missing("provider"))?;
        let breakers = &self.memory.breakers;
        let was = match query.value("action") {
            Some("recover") => breakers.force_recovery(&tenant, &provider, now()),
            Some("half-open") => breakers.force_recovery_to_half_open(&tenant, &provider, now()),
            Some("reset") => breakers.reset_recovery_state(&tenant, &provider, now()),
            Some("forget-estimate") => {
                let forgotten = self.memory.estimates.forget(&tenant, &provider);
                return Ok(respond::json(
                    StatusCode::OK,
                    &json!({"ok": true, "forgotten": forgotten}),
                ));
            }
            _ => {
                let message = "action is recover, half-open, reset or forget-estimate";
                return Err(Failure::new(ErrorCode::InvalidRequest, message));
            }
        };
        let Some(was) = was else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "the tenant's provider has no breaker",
            ));
        };
        tracing::warn!(
            tenant = tenant.as_str(),
            provider = &*provider,
            was = was.as_str(),
            "A breaker was changed on request."
        );
        let status = breakers.status(&tenant, &provider, now());
        let page = json!({"ok": true, "was": was, "breaker": status.as_ref().map(breaker_page)});
        Ok(respond::json(StatusCode::OK, &page))
    }

    /// The buckets of a tenant and its policies, and the one of all.
    pub(super) fn rate_limits(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let buckets = &self.memory.buckets;
        let mut page = json!({
            "buckets": buckets.len(),
            "evicted": buckets.evicted(),
            "global": buckets.status(&BucketKey::Global),
        });
        if query.value("tenant").is_some() {
            let tenant = tenant(query)?;
            let list = buckets
                .list(&tenant, limit(query)?)
                .into_iter()
                .map(|(key, status)| {
                    let mut bucket = json!(status);
                    bucket["policy_id"] = match key {
                        BucketKey::Policy(_, policy_id) => json!(policy_id),
                        BucketKey::Tenant(_) | BucketKey::Global => Value::Null,
                    };
                    bucket
                });
            page["list"] = list.collect();
            page["tenant_id"] = json!(tenant);
        }
        Ok(respond::json(StatusCode::OK, &page))
    }

    /// Fills a bucket again, by forgetting it.
    pub(super) fn reset_rate_limit(&self, query: &Query<'_>) -> Result<Response, Failure> {
        let key = match (query.value("scope"), query.value("policy")) {
            (Some("global"), None) => BucketKey::Global,
            (Some("tenant"), None) => BucketKey::Tenant(tenant(query)?),
            (None | Some("policy"), Some(policy)) => {
                let policy = PolicyId::parse(policy).map_err(|error| invalid(format!("policy {error}")))?;
                BucketKey::Policy(tenant(query)?, policy)
            }
            _ => {
                return Err(invalid(
                    "name a tenant and a policy, or scope=tenant and a tenant, or scope=global",
                ));
            }
        };
        if !self.memory.buckets.reset(&key) {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such bucket: nobody has used it lately",
            ));
        }
        Ok(respond::json(StatusCode::OK, &json!({"ok": true})))
    }

    /// One policy as decisions understand it, with what is wrong with it.
    pub(super) fn policy(&self, tenant: &str, policy_id: &str) -> Result<Response, Failure> {
        let snapshot = self.store.load_full();
        let crate::snapshot::Lookup::Found(found) = snapshot.lookup(tenant, policy_id).0 else {
            return Err(Failure::new(
                ErrorCode::NotFound,
                "there is no such policy in memory",
            ));
        };
        let policy = found.policy;
        let page = json!({
            "tenant_id": tenant,
            "policy_id": policy_id,
            "etag": policy.document.etag(),
            "revision": policy.revision,
            "source": found.source(snapshot.origin()),
            "policy": policy.routing().to_normalised(tenant, policy_id),
            "problems": policy.notes(),
        });
        Ok(respond::json(StatusCode::OK, &page))
    }
}

fn breaker_page(status: &BreakerStatus) -> Value {
    json!({
        "state": status.state,
        "state_changed_at": status.state_changed_at,
        "elapsed_ms": status.elapsed_ms,
        "timeout_ms": status.timeout_ms,
        "remaining_ms": status.remaining_ms,
        "half_open_calls_count": status.half_open_calls_count,
        "failure_count": status.failure_count,
        "success_count": status.success_count,
        "error_rate": status.error_rate,
        "window_failures": status.window_failures,
        "window_total": status.window_total,
        "total_failures": status.total_failures,
        "total_successes": status.total_successes,
        "failure_threshold": status.settings.failure_threshold,
        "success_threshold": status.settings.success_threshold,
        "half_open_max_calls": status.settings.half_open_max_calls,
        "error_rate_threshold": status.settings.error_rate_threshold,
        "error_rate_window_seconds": status.settings.error_rate_window_seconds,
        "error_rate_min_requests": status.settings.error_rate_min_requests,
        "latency_threshold_ms": status.settings.latency_threshold_ms,
    })
}

fn invalid(message: impl Into<String>) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, message)
}

fn missing(name: &str) -> Failure {
    invalid(format!("the parameter {name} is required"))
}

fn tenant(query: &Query<'_>) -> Result<TenantId, Failure> {
    let tenant = query.value("tenant").ok_or_else(|| missing("tenant"))?;
    TenantId::parse(tenant).map_err(|error| invalid(format!("tenant {error}")))
}

fn limit(query: &Query<'_>) -> Result<usize, Failure> {
    match query.value("limit") {
        None => Ok(MOST),
        Some(limit) => match limit.parse() {
            Ok(limit @ 1..=MOST) => Ok(limit),
            _ => Err(invalid(format!("limit is 1 to {MOST}"))),
        },
    }
}

/// A parameter that may hold anything, percent-encoded.
fn decoded<'q>(query: &Query<'q>, name: &str) -> Result<Option<Cow<'q, str>>, Failure> {
    let decoded = query
        .value(name)
        .map(|value| percent_decode_str(value).decode_utf8());
    decoded
        .transpose()
        .map_err(|_| invalid(format!("{name} is not UTF-8")))
}
