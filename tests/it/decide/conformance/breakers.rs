//! Cases about one provider's breaker: results come in, time passes, requests ask.

use beamline_sidecar::{
    decide::memory::{Admission, CallResult, State, classify},
    policy::{BreakerSettings, ProviderId, TenantId, read_object},
};
use serde_json::{Value, json};

use super::{
    Case,
    decisions::breaker_state,
    shorthand::{Step, story},
    world::{START, memory, record},
};

pub(super) fn run(case: &mut Case) -> Result<(), String> {
    let settings = match case.take("config").or_else(|| case.take("settings")) {
        None => BreakerSettings::default(),
        Some(Value::String(text)) if text.contains("default") => BreakerSettings::built_in(),
        Some(config) => settings(&config)?,
    };
    let memory = memory();
    let breakers = &memory.breakers;
    let tenant = TenantId::parse("default_tenant").map_err(|error| error.to_string())?;
    let provider = ProviderId::new("openai");
    let mut now = START;
    match case.take("state") {
        None => breakers.configure(&tenant, &provider, settings, now),
        Some(state) => {
            let (state, used, ago_ms) = breaker_state(&state)?;
            let used = used.min(settings.half_open_max_calls);
            let mut changed_at = now;
            changed_at.unix_ms -= ago_ms;
            breakers.restore(
                tenant.clone(),
                provider.clone(),
                record(state, settings, used, changed_at),
                now,
            );
        }
    }
    for key in ["elapsed_ms", "after_ms", "wait_ms"] {
        if let Some(wait) = case.take(key) {
            now.unix_ms += wait.as_u64().ok_or(key)?;
        }
    }
    let latency = case
        .take("latency_ms")
        .map(|latency| latency.as_u64().ok_or("latency_ms"))
        .transpose()?;
    let mut steps = Vec::new();
    for key in ["events", "calls"] {
        match case.take(key) {
            None => {}
            Some(Value::String(text)) => steps.extend(story(&text)?),
            Some(Value::Array(list)) => {
                for text in list {
                    steps.extend(story(text.as_str().ok_or(key)?)?);
                }
            }
            Some(other) => return Err(format!("given.{key} = {other}")),
        }
    }
    let (mut results, mut states, mut trigger) = (Vec::new(), Vec::new(), None);
    for step in steps {
        let transition = match step {
            Step::Waits(ms) => {
                now.unix_ms += ms;
                continue;
            }
            Step::Does(word) => match word.as_str() {
                "F" | "failure" | "record_failure" => {
                    breakers.record(&tenant, &provider, CallResult::Failure, latency, now)
                }
                "S" | "success" | "record_success" => {
                    breakers.record(&tenant, &provider, CallResult::Success, latency, now)
                }
                "should_allow" | "allow" | "call" | "A" => {
                    let (admission, transition) = breakers.admit(&tenant, provider.as_str(), now);
                    let allowed = admission == Admission::Allowed;
                    results.push(json!(if allowed { "allow" } else { "circuit_open" }));
                    transition
                }
                "force_recovery" => {
                    breakers.force_recovery(&tenant, provider.as_str(), now);
                    None
                }
                "force_recovery_to_half_open" => {
                    breakers.force_recovery_to_half_open(&tenant, provider.as_str(), now);
                    None
                }
                "reset_recovery_state" | "reset" => {
                    breakers.reset_recovery_state(&tenant, provider.as_str(), now);
                    None
                }
                other => return Err(format!("the event {other:?}")),
            },
        };
        states.extend(breakers.state(&tenant, provider.as_str()));
        trigger = transition.map(|transition| transition.trigger).or(trigger);
    }
    let status = breakers.status(&tenant, provider.as_str(), now);
    let status = status.ok_or("there is no breaker")?;
    case.expect.check_each("result", &results);
    for (key, got) in [
        ("state", json!(status.state)),
        ("trigger", json!(trigger)),
        ("failure_count", json!(status.failure_count)),
        ("success_count", json!(status.success_count)),
        ("half_open_calls_count", json!(status.half_open_calls_count)),
        ("half_open_calls", json!(status.half_open_calls_count)),
        ("error_rate", json!(status.error_rate)),
        ("remaining_ms", json!(status.remaining_ms)),
        ("elapsed_ms", json!(status.elapsed_ms)),
        ("window_total", json!(status.window_total)),
        ("window_failures", json!(status.window_failures)),
    ] {
        case.expect.check(key, &got);
    }
    case.expect.check_each(
        "states",
        &states
            .iter()
            .map(|state: &State| json!(state))
            .collect::<Vec<_>>(),
    );
    Ok(())
}

/// Settings as the internal interfaces take them: a rate above 1 is off.
fn settings(config: &Value) -> Result<BreakerSettings, String> {
    let document = json!({"circuit_breaker": config});
    let policy = document.as_object().map(|document| read_object(document).0);
    let settings = policy
        .and_then(|policy| policy.circuit_breaker)
        .ok_or("given.config")?;
    let mut settings = *settings;
    let given = config.as_object().ok_or("given.config")?;
    if let Some(rate) = given.get("error_rate_threshold").and_then(Value::as_f64) {
        settings.error_rate_threshold = rate;
    }
    // Cases run on times that no policy may have.
    if let Some(timeout) = given.get("timeout_ms").and_then(Value::as_u64) {
        settings.timeout_ms = timeout;
    }
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
    match given.keys().find(|key| !KEYS.contains(&key.as_str())) {
        Some(key) => Err(format!("given.config.{key}")),
        None => Ok(settings),
    }
}

/// What results count as.
pub(super) fn classify_results(case: &mut Case) -> Result<(), String> {
    let results = case.take("results").ok_or("given.results")?;
    let mut recorded = Vec::new();
    for result in results.as_array().ok_or("given.results")? {
        let text = |key: &str| result.get(key).and_then(Value::as_str);
        const KEYS: [&str; 6] = [
            "status",
            "error_code",
            "error_type",
            "error_message",
            "message",
            "error",
        ];
        let keys = result.as_object().ok_or("given.results")?;
        if let Some(key) = keys.keys().find(|key| !KEYS.contains(&key.as_str())) {
            return Err(format!("given.results.{key}"));
        }
        let message = text("error_message")
            .or_else(|| text("message"))
            .or_else(|| text("error"));
        let status = text("status").unwrap_or_default();
        recorded.push(json!(
            match classify(status, text("error_code"), text("error_type"), message) {
                Some(CallResult::Success) => "success",
                Some(CallResult::Failure) => "failure",
                None => "ignored",
            }
        ));
    }
    case.expect.check_each("recorded", &recorded);
    case.expect.check_each("result", &recorded);
    Ok(())
}
