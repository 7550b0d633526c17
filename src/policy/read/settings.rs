//! Sticky sessions, breaker, rate limit, timeouts, health checks.

use serde_json::{Map, Value};

use super::notes::Notes;
use crate::policy::{BreakerSettings, HealthCheck, LimitScope, RateLimit, Sticky, json_path::At};

/// How long a session lasts if the policy does not specify it.
const TTL_SECONDS: i64 = 3_600;

pub(super) fn sticky(document: &Map<String, Value>, notes: &mut Notes) -> Option<Box<Sticky>> {
    let at = At::Key(&At::Root, "sticky");
    let sticky = notes.object(document.get("sticky"), at, "sticky")?;
    notes.unknown_keys(sticky, &at, &["enabled", "session_key", "ttl", "ttl_seconds"]);
    let at_enabled = At::Key(&at, "enabled");
    if !sticky.contains_key("enabled") {
        notes.error(
            at_enabled,
            "sticky.enabled is required",
            "write \"enabled\": true or false",
        );
    }
    let enabled = notes
        .boolean(sticky.get("enabled"), at_enabled, "sticky.enabled")
        .unwrap_or(false);
    let at_key = At::Key(&at, "session_key");
    let session_key = match sticky.get("session_key") {
        None => "session_id",
        Some(Value::String(key)) => {
            if !(1..=255).contains(&key.len()) {
                let remedy = "name a key of the request's context";
                notes.error(at_key, "sticky.session_key must be 1-255 characters", remedy);
            }
            key
        }
        Some(_) => {
            let remedy = "name a key of the request's context";
            notes.error(at_key, "sticky.session_key must be a string", remedy);
            "session_id"
        }
    };
    let session_key = if session_key.is_empty() {
        "session_id"
    } else {
        session_key
    };
    let (ttl, ttl_seconds) = ttl(sticky, at, notes);
    Some(Box::new(Sticky {
        enabled,
        session_key: session_key.into(),
        ttl,
        ttl_seconds,
    }))
}

/// `ttl` wins over `ttl_seconds`, even if it is not valid.
fn ttl(sticky: &Map<String, Value>, at: At<'_>, notes: &mut Notes) -> (Option<Box<str>>, i64) {
    let at_ttl = At::Key(&at, "ttl");
    let Some(ttl) = sticky.get("ttl") else {
        notes.whole(sticky, &at, "ttl_seconds", 1..=86_400);
        let seconds = sticky.get("ttl_seconds").and_then(Value::as_i64);
        return (None, seconds.unwrap_or(TTL_SECONDS));
    };
    if sticky.contains_key("ttl_seconds") {
        let at = At::Key(&at, "ttl_seconds");
        notes.warn(
            at,
            "`ttl` is given, so `ttl_seconds` is ignored",
            "keep one of the two",
        );
    }
    match ttl.as_str().and_then(parse_ttl) {
        Some(seconds) => {
            if seconds <= 0 {
                notes.warn(
                    at_ttl,
                    "no session is ever reused",
                    "write a time above zero, or disable sticky",
                );
            }
            (ttl.as_str().map(Into::into), seconds)
        }
        None => {
            let remedy = "write digits and one of s, m, h: \"30s\", \"10m\", \"2h\"";
            notes.error(at_ttl, "ttl is not a time", remedy);
            (None, TTL_SECONDS)
        }
    }
}

/// Seconds of a text such as `10m`. A number outside an i64 is not valid.
pub(crate) fn parse_ttl(text: &str) -> Option<i64> {
    let (unit, seconds) = [("s", 1), ("m", 60), ("h", 3_600)]
        .into_iter()
        .find(|(unit, _)| text.ends_with(unit))?;
    let digits = text.strip_suffix(unit)?;
    // `parse` alone would accept a sign.
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    digits.parse::<i64>().ok()?.checked_mul(seconds)
}

pub(super) fn circuit_breaker(
    document: &Map<String, Value>,
    notes: &mut Notes,
) -> Option<Box<BreakerSettings>> {
    let at = At::Key(&At::Root, "circuit_breaker");
    let object = notes.object(document.get("circuit_breaker"), at, "circuit_breaker")?;
    Some(Box::new(breaker_settings(object, at, notes)))
}

fn breaker_settings(object: &Map<String, Value>, at: At<'_>, notes: &mut Notes) -> BreakerSettings {
    const KEYS: [&str; 9] = [
        "enabled",
        "failure_threshold",
        "success_threshold",
        "timeout_ms",
        "half_open_max_calls",
        "error_rate_threshold",
        "error_rate_window_seconds",
        "error_rate_min_requests",
        "latency_threshold_ms",
    ];
    notes.unknown_keys(object, &at, &KEYS);
    let default = BreakerSettings::default();
    let enabled = notes.boolean(
        object.get("enabled"),
        At::Key(&at, "enabled"),
        "circuit_breaker.enabled",
    );
    let mut whole = |key, default, range| notes.whole_u32(object, &at, key, range).unwrap_or(default);
    let failure_threshold = whole("failure_threshold", default.failure_threshold, 1..=100);
    let success_threshold = whole("success_threshold", default.success_threshold, 1..=10);
    let timeout_ms = u64::from(whole("timeout_ms", 60_000, 1_000..=300_000));
    let half_open_max_calls = whole("half_open_max_calls", default.half_open_max_calls, 1..=100);
    let error_rate_window_seconds = whole(
        "error_rate_window_seconds",
        default.error_rate_window_seconds,
        1..=3_600,
    );
    let error_rate_min_requests = whole(
        "error_rate_min_requests",
        default.error_rate_min_requests,
        1..=1_000,
    );
    let latency_threshold_ms = notes
        .whole_u32(object, &at, "latency_threshold_ms", 1..=3_600_000)
        .map(u64::from);
    BreakerSettings {
        enabled: enabled.unwrap_or(default.enabled),
        failure_threshold,
        success_threshold,
        timeout_ms,
        half_open_max_calls,
        error_rate_threshold: error_rate(object, at, notes).unwrap_or(default.error_rate_threshold),
        error_rate_window_seconds,
        error_rate_min_requests,
        latency_threshold_ms,
    }
}

/// A stored rate above one is kept: it turns the rate off.
fn error_rate(object: &Map<String, Value>, at: At<'_>, notes: &mut Notes) -> Option<f64> {
    let value = object.get("error_rate_threshold")?;
    let rate = value.as_f64();
    if !rate.is_some_and(|rate| (0.0..=1.0).contains(&rate)) {
        let at = At::Key(&at, "error_rate_threshold");
        notes.error(
            at,
            "error_rate_threshold must be 0.0 to 1.0",
            "write the share of failures that opens",
        );
    }
    rate.map(|rate| rate.max(0.0))
}

/// The rate limit, if it is enabled.
pub(super) fn rate_limit(document: &Map<String, Value>, notes: &mut Notes) -> Option<Box<RateLimit>> {
    let at = At::Key(&At::Root, "rate_limit");
    let object = notes.object(document.get("rate_limit"), at, "rate_limit")?;
    notes.unknown_keys(
        object,
        &at,
        &[
            "enabled",
            "scope",
            "requests_per_second",
            "burst",
            "limit",
            "window_seconds",
        ],
    );
    let enabled = notes.boolean(
        object.get("enabled"),
        At::Key(&at, "enabled"),
        "rate_limit.enabled",
    );
    const RANGE: std::ops::RangeInclusive<u32> = 1..=1_000_000;
    let burst = notes.whole_u32(object, &at, "burst", RANGE).unwrap_or(50);
    let window = notes.whole_u32(object, &at, "window_seconds", 1..=86_400);
    let limit = notes.whole_u32(object, &at, "limit", RANGE);
    let per_second = requests_per_second(object, at, notes);
    let (requests_per_second, window_seconds) = match (per_second, limit, window) {
        (Some(per_second), None, None) => (per_second, 1),
        (Some(per_second), _, _) => {
            let message = "`requests_per_second` is given, so `limit` and `window_seconds` are ignored";
            notes.warn(at, message, "keep one of the two spellings");
            (per_second, 1)
        }
        (None, Some(limit), window) => {
            let window = window.unwrap_or(1);
            (f64::from(limit) / f64::from(window), window)
        }
        (None, None, _) => (100.0, 1),
    };
    let scope = scope(object, at, notes);
    let limit = RateLimit {
        scope,
        requests_per_second,
        burst,
        window_seconds,
    };
    enabled.unwrap_or(false).then(|| Box::new(limit))
}

fn requests_per_second(object: &Map<String, Value>, at: At<'_>, notes: &mut Notes) -> Option<f64> {
    let value = object.get("requests_per_second")?;
    let rate = value.as_f64();
    if !rate.is_some_and(|rate| (1.0..=1_000_000.0).contains(&rate)) {
        let at = At::Key(&at, "requests_per_second");
        notes.error(
            at,
            "requests_per_second must be 1 to 1000000",
            "write a number in that range",
        );
    }
    rate.map(|rate| rate.clamp(1.0, 1_000_000.0))
}

fn scope(object: &Map<String, Value>, at: At<'_>, notes: &mut Notes) -> LimitScope {
    let at = At::Key(&at, "scope");
    let wider =
        "a policy's own limit applies to that policy; tenant and global limits are configured in the sidecar";
    let remedy = "configure decide.tenant_limit or decide.global_limit: here it counts as \"policy\"";
    match object.get("scope").map(Value::as_str) {
        None | Some(Some("policy")) => LimitScope::Policy,
        Some(Some("tenant")) => {
            notes.warn(at, wider, remedy);
            LimitScope::Tenant
        }
        Some(Some("global")) => {
            notes.warn(at, wider, remedy);
            LimitScope::Global
        }
        Some(_) => {
            notes.error(at, "there is no such scope", "use \"policy\"");
            LimitScope::Policy
        }
    }
}

pub(super) fn timeout_ms(object: &Map<String, Value>, parent: &At<'_>, notes: &mut Notes) -> Option<u32> {
    notes.whole_u32(object, parent, "timeout_ms", 1..=300_000)
}

/// Reads either form: `failure_threshold` means `unhealthy_threshold`.
pub(super) fn health_check(
    object: &Map<String, Value>,
    parent: &At<'_>,
    notes: &mut Notes,
) -> Option<Box<HealthCheck>> {
    let at = At::Key(parent, "health_check");
    let object = notes.object(object.get("health_check"), at, "health_check")?;
    const KEYS: [&str; 7] = [
        "enabled",
        "url",
        "interval_ms",
        "timeout_ms",
        "failure_threshold",
        "unhealthy_threshold",
        "healthy_threshold",
    ];
    notes.unknown_keys(object, &at, &KEYS);
    let enabled = notes.boolean(
        object.get("enabled"),
        At::Key(&at, "enabled"),
        "health_check.enabled",
    );
    let at_url = At::Key(&at, "url");
    let url = match object.get("url") {
        None => None,
        Some(Value::String(url)) if is_http(url) => Some(url.as_str().into()),
        Some(_) => {
            notes.error(
                at_url,
                "url must be an http or https address",
                "write it like \"https://host/health\"",
            );
            None
        }
    };
    let mut whole = |key, range| notes.whole_u32(object, &at, key, range);
    let (interval_ms, timeout_ms) = (
        whole("interval_ms", 1_000..=60_000),
        whole("timeout_ms", 100..=30_000),
    );
    let (failure, unhealthy) = (
        whole("failure_threshold", 1..=100),
        whole("unhealthy_threshold", 1..=100),
    );
    let healthy = whole("healthy_threshold", 1..=100);
    if failure.is_some() && unhealthy.is_some() {
        let at = At::Key(&at, "failure_threshold");
        let message = "`unhealthy_threshold` is given, so `failure_threshold` is ignored";
        notes.warn(at, message, "keep one of the two");
    }
    Some(Box::new(HealthCheck {
        enabled: enabled.unwrap_or(false),
        url,
        interval_ms: interval_ms.unwrap_or(10_000),
        timeout_ms: timeout_ms.unwrap_or(5_000),
        unhealthy_threshold: unhealthy.or(failure).unwrap_or(3),
        healthy_threshold: healthy.unwrap_or(2),
    }))
}

fn is_http(url: &str) -> bool {
    url.len() <= 2_048
        && url.parse::<http::Uri>().is_ok_and(|uri| {
            matches!(uri.scheme_str(), Some("http" | "https"))
                && uri.host().is_some_and(|host| !host.is_empty())
        })
}
