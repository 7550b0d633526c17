//! Cases that decide: a policy, what was there before, one request or several.

use std::collections::BTreeMap;

use beamline_sidecar::{
    decide::{
        Mechanism, Rules, Script, Scripted, audit_form,
        memory::{Session, State},
    },
    policy::{ProviderId, TenantId},
};
use serde_json::{Value, json};

use super::{
    Case, Object, shorthand,
    world::{START, World},
};

/// The policy of a case: an object, `fixture NAME`, or a text that describes it.
pub(super) fn policy(case: &mut Case) -> Result<Object, String> {
    match case.take("policy") {
        Some(Value::Object(policy)) => Ok(policy),
        Some(Value::String(text)) => match text.strip_prefix("fixture ") {
            Some(name) => match case.fixtures.named(name.trim())? {
                Value::Object(policy) => Ok(policy),
                _ => Err(format!("fixture {name} is not an object")),
            },
            None => described(case, &text),
        },
        Some(other) => Err(format!("given.policy = {other}")),
        None => Ok(one_provider()),
    }
}

fn one_provider() -> Object {
    json!({"weights": {"a": 1.0}})
        .as_object()
        .cloned()
        .unwrap_or_default()
}

/// `rate limit exhausted plus required pre-processor`.
fn described(case: &mut Case, text: &str) -> Result<Object, String> {
    let mut policy = one_provider();
    for part in text
        .split(" plus ")
        .flat_map(|part| part.split(" and "))
        .map(str::trim)
    {
        let list = |key: &str| json!([{"id": "x", key: if key == "mode" { "required" } else { "block" }}]);
        match part {
            "rate limit exhausted" | "exhausted rate limit" => {
                policy.insert(
                    "rate_limit".into(),
                    json!({"enabled": true, "requests_per_second": 1, "burst": 1}),
                );
                case.given.insert("spent".into(), 1.into());
            }
            "rate limit" => {
                policy.insert("rate_limit".into(), json!({"enabled": true}));
            }
            "required pre-processor" | "a required pre-processor" => {
                policy.insert("pre".into(), list("mode"));
            }
            "blocking validator" | "a blocking validator" => {
                policy.insert("validators".into(), list("on_fail"));
            }
            "required post-processor" | "a required post-processor" => {
                policy.insert("post".into(), list("mode"));
            }
            _ => return Err(format!("the policy {part:?}")),
        }
    }
    Ok(policy)
}

/// The world of a case, with everything in it that was given but the requests.
pub(super) fn world(case: &mut Case, document: &Object) -> Result<World, String> {
    let mut world = World::of(document);
    if let Some(tenant) = case.take("tenant").or_else(|| case.take("tenant_id")) {
        let tenant = tenant.as_str().ok_or("the tenant")?;
        world.tenant = TenantId::parse(tenant).map_err(|error| format!("the tenant: {error}"))?;
    }
    rules(case, &mut world.rules)?;
    world.extensions = super::pipelines::told(case)?;
    Ok(world)
}

fn rules(case: &mut Case, rules: &mut Rules) -> Result<(), String> {
    let from = |value: Value| serde_json::from_value(value).map_err(|error| error.to_string());
    if let Some(value) = case.take("fallback_evaluation") {
        rules.fallback_evaluation = from(value)?;
    }
    if let Some(value) = case.take("status_classes") {
        rules.conditions.status_classes = value.as_bool().ok_or("status_classes")?;
    }
    if let Some(Value::Object(mut settings)) = case.take("settings") {
        if let Some(value) = settings.remove("fallback_evaluation") {
            rules.fallback_evaluation = from(value)?;
        }
        if let Some(value) = settings.remove("status_classes") {
            rules.conditions.status_classes = value.as_bool().ok_or("status_classes")?;
        }
        if let Some((key, _)) = settings.iter().next() {
            return Err(format!("given.settings.{key}"));
        }
    }
    Ok(())
}

/// What was there before the first request.
fn history(case: &Object, world: &World) -> Result<(), String> {
    if let Some(pins) = case.get("sticky_state") {
        for (name, provider) in pins.as_object().ok_or("sticky_state")? {
            let (tenant, value) = match name.split_once('/') {
                Some((tenant, value)) => (TenantId::parse(tenant).map_err(|error| error.to_string())?, value),
                None => (world.tenant.clone(), name.as_str()),
            };
            world.pin(&tenant, &value.into(), provider.as_str().ok_or("sticky_state")?);
        }
    }
    if let Some(breakers) = case.get("breaker") {
        for (provider, state) in breakers.as_object().ok_or("breaker")? {
            let (state, used, ago_ms) = breaker_state(state)?;
            world.set_breaker(provider, state, used, ago_ms);
        }
    }
    if let Some(list) = case.get("unhealthy") {
        for provider in list.as_array().ok_or("unhealthy")? {
            let provider = ProviderId::new(provider.as_str().ok_or("unhealthy")?);
            world.memory.health.set(&world.tenant, &provider, false);
        }
    }
    if let Some(health) = case.get("health") {
        for (provider, health) in health.as_object().ok_or("health")? {
            let healthy = match health.as_str() {
                Some("healthy") => true,
                Some("unhealthy") => false,
                _ => return Err(format!("the health {health}")),
            };
            world
                .memory
                .health
                .set(&world.tenant, &ProviderId::new(provider), healthy);
        }
    }
    Ok(())
}

/// `open`, `half_open, 3 used`, `open for 60000 ms`.
pub(super) fn breaker_state(state: &Value) -> Result<(State, u32, u64), String> {
    let not_understood = || format!("the breaker state {state}");
    let text = state.as_str().ok_or_else(not_understood)?;
    let (name, rest) = text.split_at(text.find([',', ' ']).unwrap_or(text.len()));
    let state = match name {
        "closed" => State::Closed,
        "open" => State::Open,
        "half_open" | "half-open" => State::HalfOpen,
        _ => return Err(not_understood()),
    };
    let words: Vec<&str> = rest.trim_start_matches([',', ' ']).split_whitespace().collect();
    let (used, ago_ms) = match words[..] {
        [] => (0, 0),
        [used, "used"] => (used.parse().map_err(|_| not_understood())?, 0),
        ["for", digits, unit] | ["since", digits, unit] | [digits, unit, "ago"] => {
            (0, shorthand::millis(digits, unit)?)
        }
        ["budget", "used", "up"] | ["exhausted"] => (u32::MAX, 0),
        _ => return Err(not_understood()),
    };
    Ok((state, used, ago_ms))
}

/// Decides what a case asks, and compares.
pub(super) async fn run(case: &mut Case) -> Result<(), String> {
    let document = match case.given.remove("parsed_policy") {
        Some(Value::Object(document)) => document,
        _ => policy(case)?,
    };
    let mut world = world(case, &document)?;
    let before: Object = ["sticky_state", "breaker", "unhealthy", "health"]
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), case.take(key)?)))
        .collect();
    history(&before, &world)?;
    passes(case, &mut world)?;
    if let Some(attempts) = case.take("attempts").or_else(|| case.take("retry_attempts"))
        && let Some(Value::Object(context)) = case.given.get_mut("context")
    {
        context.insert("retry_attempts".into(), attempts);
    }
    let contexts = contexts(case, &world)?;
    let spent = case.take("spent").and_then(|count| count.as_u64()).unwrap_or(0);
    for _ in 0..spent {
        world.decide(&Object::new()).await;
    }
    if let Some(n) = case.take("n") {
        let n = n.as_u64().ok_or("given.n")?;
        return many(case, &mut world, &contexts, n).await;
    }
    let repeat = case
        .take("repeat")
        .map_or(Some(1), |repeat| repeat.as_u64())
        .ok_or("given.repeat")?;
    let levels = case.take("detail_level");
    let mut got = Vec::new();
    match levels {
        // Each level explains the same request: in a world where it was not made before.
        Some(Value::Array(levels)) => {
            for level in levels {
                let mut fresh = World::of(&document);
                fresh.rules = world.rules.clone();
                history(&before, &fresh)?;
                for context in &contexts {
                    let mut context = context.clone();
                    context.insert("detail_level".into(), level.clone());
                    got.push(fresh.decide(&context).await);
                }
            }
        }
        level => {
            for context in &contexts {
                let mut context = context.clone();
                if let Some(level) = &level {
                    context.insert("detail_level".into(), level.clone());
                }
                for _ in 0..repeat {
                    got.push(world.decide(&context).await);
                }
            }
        }
    }
    remembered(case, &world)?;
    compare(case, &got);
    Ok(())
}

/// Time that goes by between what was there before and the requests.
fn passes(case: &mut Case, world: &mut World) -> Result<(), String> {
    for (keys, scale) in [
        (["after_ms", "wait_ms", "elapsed_ms", "age_ms"], 1),
        (["after_s", "wait_s", "elapsed_s", "age_s"], 1_000),
        (
            ["after_seconds", "wait_seconds", "elapsed_seconds", "age_seconds"],
            1_000,
        ),
    ] {
        for key in keys {
            if let Some(time) = case.take(key) {
                world.now.unix_ms += time.as_u64().ok_or(key)? * scale;
            }
        }
    }
    Ok(())
}

/// What the sessions are like afterwards.
fn remembered(case: &mut Case, world: &World) -> Result<(), String> {
    let names = case.expect.keys_of("sticky_state");
    let mut found = Object::new();
    for name in names {
        let (tenant, value) = match name.split_once('/') {
            Some((tenant, value)) => (TenantId::parse(tenant).map_err(|error| error.to_string())?, value),
            None => (world.tenant.clone(), name.as_str()),
        };
        let value = Value::from(value);
        let session = Session {
            tenant: &tenant,
            value: &value,
        };
        let provider = world.memory.sticky.peek(session, i64::MAX, world.now);
        found.insert(name, json!(provider));
    }
    case.expect.check("sticky_state", &Value::Object(found));
    case.expect
        .check("stored", &json!(!world.memory.sticky.is_empty()));
    case.expect
        .check("sticky_size", &json!(world.memory.sticky.len()));
    Ok(())
}

/// The contexts to decide on, one after the other. A key whose value is a list as long as the expected results
/// makes one context each.
fn contexts(case: &mut Case, world: &World) -> Result<Vec<Object>, String> {
    let contexts = match case.take("contexts").or_else(|| case.take("context")) {
        None => vec![Object::new()],
        Some(Value::Object(context)) => varied(case, context),
        Some(Value::Array(list)) => list
            .into_iter()
            .map(|context| match context {
                Value::Object(context) => Ok(context),
                other => Err(format!("the context {other}")),
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(format!("the context {other}")),
    };
    Ok(contexts
        .into_iter()
        .map(|context| spelt_out(context, world))
        .collect())
}

fn varied(case: &Case, context: Object) -> Vec<Object> {
    let wanted = case.expect.length_of("result");
    let list = context.iter().find_map(|(key, value)| {
        let list = value.as_array()?;
        (Some(list.len()) == wanted).then(|| (key.clone(), list.clone()))
    });
    match list {
        Some((key, list)) => list
            .into_iter()
            .map(|value| {
                let mut context = context.clone();
                context.insert(key.clone(), value);
                context
            })
            .collect(),
        None => vec![context],
    }
}

/// `now+5000` is a time, `retry_attempts_<rule_id>` the counter of the first rule.
fn spelt_out(context: Object, world: &World) -> Object {
    let rule_id = |index: usize| world.policy.fallbacks.get(index).map(|rule| rule.id.to_string());
    let name = |key: &str| {
        let id = rule_id(0).unwrap_or_default();
        ["<rule_id>", "<id>", "<rule>"]
            .iter()
            .fold(key.to_owned(), |key, placeholder| key.replace(placeholder, &id))
    };
    let moment = |text: &str| {
        let offset = text.strip_prefix("now")?;
        let offset: i64 = if offset.is_empty() {
            0
        } else {
            offset.parse().ok()?
        };
        START.unix_ms.checked_add_signed(offset)
    };
    context
        .into_iter()
        .map(|(key, value)| {
            let value = match value {
                Value::String(text) => moment(&text).map_or(Value::String(text), Into::into),
                Value::Object(map) => {
                    Value::Object(map.into_iter().map(|(key, value)| (name(&key), value)).collect())
                }
                other => other,
            };
            (name(&key), value)
        })
        .collect()
}

async fn many(case: &mut Case, world: &mut World, contexts: &[Object], n: u64) -> Result<(), String> {
    let mut counts: BTreeMap<String, u64> = BTreeMap::new();
    let mut last = Object::new();
    for _ in 0..n {
        for context in contexts {
            last = world.decide(context).await;
            let provider = last
                .get("provider_id")
                .and_then(Value::as_str)
                .unwrap_or("(none)");
            *counts.entry(provider.to_owned()).or_default() += 1;
        }
    }
    let total = (n * contexts.len() as u64) as f64;
    let tolerance = case
        .expect
        .take("tolerance")
        .map_or(Some(0.02), |tolerance| tolerance.as_f64());
    let tolerance = tolerance.ok_or("expect.tolerance")?;
    if let Some(wanted) = case.expect.take("distribution") {
        let shares: Object = counts
            .iter()
            .map(|(name, count)| (name.clone(), json!(*count as f64 / total)))
            .collect();
        let wanted_shares = wanted.as_object().ok_or("expect.distribution")?;
        let met = wanted_shares.iter().all(|(name, share)| {
            let got = shares.get(name).and_then(Value::as_f64).unwrap_or(0.0);
            share
                .as_f64()
                .is_some_and(|share| (share - got).abs() <= tolerance)
        });
        if !met || shares.keys().any(|name| !wanted_shares.contains_key(name)) {
            case.expect
                .differ("distribution", &wanted, &Value::Object(shares));
        }
    }
    compare(case, &[last]);
    Ok(())
}

/// Compares everything a case expects with what each request got.
fn compare(case: &mut Case, got: &[Object]) {
    const LISTS: [&str; 5] = ["executed_extensions", "executed", "steps", "warnings", "excluded"];
    for key in case.expect.keys() {
        if key == "grpc" {
            case.expect.set_aside(&key, "there is no gRPC here");
            continue;
        }
        let values: Vec<Value> = got.iter().map(|one| found(one, &key)).collect();
        if values.iter().all(|value| value == UNKNOWN) {
            continue;
        }
        if key == "step" {
            let Some(wanted) = case.expect.take(&key) else {
                continue;
            };
            for (index, steps) in values.iter().enumerate() {
                let wanted = wanted
                    .as_array()
                    .and_then(|list| list.get(index))
                    .unwrap_or(&wanted);
                if !steps.as_array().is_some_and(|steps| steps.contains(wanted)) {
                    case.expect.differ("step", wanted, steps);
                }
            }
            continue;
        }
        // A list of lists is one for each request, a plain one is for all.
        let each = case.expect.is_list_of_lists(&key);
        if LISTS.contains(&key.as_str()) && !each {
            let Some(wanted) = case.expect.take(&key) else {
                continue;
            };
            for value in &values {
                case.expect.compare(&key, &wanted, value);
            }
        } else {
            case.expect.check_each(&key, &values);
        }
    }
}

const UNKNOWN: &str = "\u{0}unknown";

/// What a decision shows under a name, which may be a path. Some names can be absent; others do not exist.
fn found(got: &Object, key: &str) -> Value {
    const OPTIONAL: [&str; 18] = [
        "provider_id",
        "reason",
        "priority",
        "rule_index",
        "rule_id",
        "fallback_rule_id",
        "retry_attempt",
        "retry_max",
        "retry_attempts_used",
        "backoff_ms",
        "backoff_applied",
        "fallback_applied",
        "error",
        "wire_code",
        "steps",
        "details",
        "evidence",
        "retry_after_seconds",
    ];
    let name = if key == "step" { "steps" } else { key };
    if let Some(value) = got.get(name) {
        return value.clone();
    }
    if OPTIONAL.contains(&name) {
        return Value::Null;
    }
    let Some((first, rest)) = name.split_once('.') else {
        return UNKNOWN.into();
    };
    match got.get(first) {
        Some(first) => first
            .pointer(&format!("/{}", rest.replace('.', "/")))
            .cloned()
            .unwrap_or_default(),
        None => UNKNOWN.into(),
    }
}

/// Requests against a rate limit: how many of each burst are let in.
pub(super) async fn requests(case: &mut Case) -> Result<(), String> {
    let document = match case.take("rate_limit") {
        Some(limit) => {
            let mut document = one_provider();
            document.insert("rate_limit".into(), limit);
            document
        }
        None => policy(case)?,
    };
    let mut world = world(case, &document)?;
    let requests = case.take("requests");
    let bursts = match requests {
        Some(Value::String(text)) => shorthand::bursts(&text)?,
        Some(Value::Number(count)) => vec![(count.as_u64().ok_or("given.requests")? as usize, 0)],
        other => return Err(format!("given.requests = {other:?}")),
    };
    let (mut allowed, mut denied, mut refusals) = (Vec::new(), Vec::new(), Vec::new());
    for (count, after) in bursts {
        world.now.unix_ms += after;
        let mut admit = 0;
        for _ in 0..count {
            let got = world.decide(&Object::new()).await;
            match got.get("error").and_then(Value::as_str) {
                None => admit += 1,
                Some("rate_limit_exceeded") => refusals.push(got),
                Some(other) => return Err(format!("the error {other}")),
            }
        }
        allowed.push(json!(admit));
        denied.push(json!(count - admit));
    }
    case.expect.check_each("allowed", &allowed);
    case.expect.check_each("denied", &denied);
    if let Some(refusal) = refusals.last() {
        compare(case, std::slice::from_ref(refusal));
    }
    Ok(())
}

/// What an explanation and the audit log say of circumstances that are only sketched.
pub(super) async fn explanations(case: &mut Case) -> Result<(), String> {
    let sketches = case.take("explanation").ok_or("given.explanation")?;
    let sketches = sketches
        .as_array()
        .cloned()
        .unwrap_or_else(|| vec![sketches.clone()]);
    for sketch in sketches {
        let mut sketch = sketch.as_object().cloned().ok_or("given.explanation")?;
        if let Some(Value::Object(mut context)) = sketch.remove("context") {
            let tenant = context.remove("tenant_id");
            if tenant.is_none() && case.expect.expects("context.tenant_id", &"unknown".into()) {
                let why = "a request without a tenant is refused, so no explanation lacks one";
                case.expect.set_aside("context.tenant_id", why);
            } else {
                let mut world = World::of(&one_provider());
                let got = world.decide(&context).await;
                for key in case
                    .expect
                    .keys()
                    .into_iter()
                    .filter(|key| key.starts_with("context"))
                {
                    case.expect.check(&key, &found(&got, &key));
                }
            }
        }
        if let Some(reason) = sketch.remove("reason") {
            let how = match reason.as_str() {
                Some("circuit_breaker_fallback") => Mechanism::BreakerFallback {
                    original: ProviderId::new("a"),
                },
                Some("sticky") => Mechanism::Sticky,
                Some("weighted") => Mechanism::Weighted,
                Some("fallback") => Mechanism::LastResort,
                Some("retry") => Mechanism::Retry {
                    rule_index: 0,
                    rule_id: "0-00000000".into(),
                    attempt: 1,
                    max: 1,
                    backoff_ms: 0,
                },
                _ => return Err(format!("the reason {reason}")),
            };
            if let Some(priority) = sketch.remove("priority")
                && priority != json!(how.priority())
            {
                case.expect.differ("priority", &priority, &json!(how.priority()));
            }
            let (reason, priority) = audit_form(&how);
            case.expect
                .check("audit", &json!({"reason": reason, "priority": priority}));
        }
        if let Some((key, _)) = sketch.iter().next() {
            return Err(format!("given.explanation.{key}"));
        }
    }
    Ok(())
}

/// Extensions of a script.
pub(super) fn script(answers: impl IntoIterator<Item = (String, Script)>, others_succeed: bool) -> Scripted {
    Scripted {
        answers: answers.into_iter().collect(),
        others_succeed,
    }
}
