//! The policy language as a JSON Schema, for editors and for programs that generate policies.
//!
//! It describes what a new policy should be, which is narrower than the reader: that accepts every form that was ever
//! stored. The types exist only for the generation of the schema.
#![expect(
    dead_code,
    reason = "the schema is generated from the fields; nothing reads them"
)]

use std::collections::BTreeMap;

use schemars::{JsonSchema, generate::SchemaSettings};
use serde::Serialize;
use serde_json::{Map, Value};

/// The schema, draft 2020-12.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12();
    let mut schema = settings
        .into_generator()
        .into_root_schema_for::<Policy>()
        .to_value();
    schema["title"] = "Beamline routing policy".into();
    forbid_null(&mut schema);
    schema["anyOf"] = serde_json::json!([{"required": ["providers"]}, {"required": ["weights"]}]);
    schema
}

/// Optional fields may be left out, but not null: the language has no null.
fn forbid_null(schema: &mut Value) {
    if let Value::Object(object) = schema {
        if let Some(Value::Array(types)) = object.get_mut("type") {
            types.retain(|name| name != "null");
            if let [only] = types.as_slice() {
                let only = only.clone();
                object.insert("type".to_owned(), only);
            }
        }
        if let Some(Value::Array(choices)) = object.get_mut("anyOf") {
            choices.retain(|choice| choice.get("type").is_none_or(|name| name != "null"));
            if let [only] = choices.as_slice() {
                let only = only.clone();
                object.remove("anyOf");
                object.extend(only.as_object().cloned().unwrap_or_default());
            }
        }
    }
    match schema {
        Value::Object(object) => object.values_mut().for_each(forbid_null),
        Value::Array(list) => list.iter_mut().for_each(forbid_null),
        _ => {}
    }
}

/// Where a tenant's requests go, and what happens when a provider fails.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Policy {
    /// A label, MAJOR.MINOR; it appears in explanations. Default "1.0".
    #[schemars(regex(pattern = r"^[0-9]+\.[0-9]+$"))]
    version: Option<String>,
    /// The policy's id. Not read: the path has it.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]{1,255}$"))]
    policy_id: Option<String>,
    /// The tenant's id. Not read: the path has it.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.-]{1,255}$"))]
    tenant_id: Option<String>,
    /// The providers and their shares. Drawn in proportion to the weights, which need not sum to 100.
    #[schemars(length(min = 1))]
    providers: Option<Vec<Provider>>,
    /// The older form of `providers`: fractions from 0.0 to 1.0, or 0 to 100 throughout. Ignored beside `providers`.
    #[schemars(extend("minProperties" = 1, "additionalProperties" = {"type": "number", "minimum": 0, "maximum": 100}, "propertyNames" = {"pattern": "^[A-Za-z0-9_.:/-]{1,255}$"}))]
    weights: Option<BTreeMap<String, f64>>,
    /// What happens after a failure: the first rule whose `when` is true decides.
    fallbacks: Option<Vec<Rule>>,
    /// The older form of `fallbacks`; beside `fallbacks`, only its provider is used, as the last resort.
    fallback: Option<Fallback>,
    /// Keeps a session with its provider.
    sticky: Option<Sticky>,
    /// Extensions that run before the choice, in order.
    #[schemars(length(max = 5))]
    pre: Option<Vec<Processor>>,
    /// Extensions that may refuse the request, in order.
    #[schemars(length(max = 5))]
    validators: Option<Vec<Validator>>,
    /// Extensions that weigh the providers before one is drawn; their factors are multiplied. The sidecar's own: the
    /// platform knows no such list and ignores it.
    #[schemars(length(max = 5))]
    scorers: Option<Vec<Processor>>,
    /// Extensions that run after the choice, in order; they add metadata.
    #[schemars(length(max = 5))]
    post: Option<Vec<Processor>>,
    /// Leaves out providers that keep failing.
    circuit_breaker: Option<CircuitBreaker>,
    /// The requests that this policy admits.
    rate_limit: Option<RateLimit>,
    /// Milliseconds that one attempt at a provider may take; returned with each decision.
    #[schemars(range(min = 1, max = 300_000))]
    timeout_ms: Option<u32>,
    /// Checks the providers actively, and leaves out those that fail the checks.
    health_check: Option<HealthCheck>,
    /// How detailed explanations of this policy's decisions are.
    explanation: Option<Explanation>,
    /// Anything; never used for routing.
    metadata: Option<Map<String, Value>>,
    /// Deprecated; never used for routing.
    #[schemars(extend("deprecated" = true))]
    defaults: Option<Map<String, Value>>,
    /// Deprecated; never used for routing.
    #[schemars(extend("deprecated" = true))]
    escalate_on: Option<Vec<Value>>,
}

/// One provider and its share.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Provider {
    /// Preferably a-z 0-9 and _ only, which every part of the platform accepts.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.:/-]{1,255}$"))]
    name: String,
    /// 0 to 100. A number with a decimal point up to 1.0 is a fraction: 1 is one per cent, 1.0 is all.
    #[schemars(range(min = 0, max = 100))]
    weight: f64,
    /// Reserved; ignored.
    #[schemars(range(min = 0, max = 100))]
    priority: Option<u8>,
    /// This provider's own `timeout_ms`.
    #[schemars(range(min = 1, max = 300_000))]
    timeout_ms: Option<u32>,
    /// This provider's own `health_check`.
    health_check: Option<HealthCheck>,
}

/// One rule: when it is true, the provider that failed is tried `retry` times more, and then `to`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Rule {
    /// Key and value of the request's context: a value, a list of values, or an operator such as `">": [a, b]` with
    /// operands like `{"var": "context.a.b"}`. All must hold; `5xx` stands for every such status.
    when: Option<Map<String, Value>>,
    /// Attempts at the provider that failed. Default 1.
    #[schemars(range(min = 0, max = 10))]
    retry: Option<u8>,
    /// How long the caller waits before a retry.
    backoff: Option<Backoff>,
    /// The provider to go to.
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.:/-]{1,255}$"))]
    to: String,
}

/// A wait that grows.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Backoff {
    /// Default exponential.
    strategy: Option<Strategy>,
    /// Milliseconds before the first retry. Default 100.
    #[schemars(range(min = 1, max = 10_000))]
    base_ms: Option<u32>,
    /// No wait is longer. Default 5000.
    #[schemars(range(min = 1, max = 60_000))]
    max_ms: Option<u32>,
    /// Adds up to a tenth by chance. Default true.
    jitter: Option<bool>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Strategy {
    Exponential,
    Linear,
    Fixed,
}

/// The older form: one provider for the conditions, or as the last resort.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
enum Fallback {
    Provider(#[schemars(regex(pattern = r"^[A-Za-z0-9_.:/-]{1,255}$"))] String),
    Rule(LegacyFallback),
}

#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct LegacyFallback {
    #[schemars(regex(pattern = r"^[A-Za-z0-9_.:/-]{1,255}$"))]
    provider: String,
    /// Values of `status`. Default `["all_providers_failed"]`.
    conditions: Option<Vec<Value>>,
}

/// Session affinity.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Sticky {
    enabled: bool,
    /// The key of the context whose value names the session. Default `session_id`.
    #[schemars(length(min = 1, max = 255))]
    session_key: Option<String>,
    /// How long a session is kept since its last request, like `30s`, `10m`, `2h`. Wins over `ttl_seconds`.
    #[schemars(regex(pattern = r"^[0-9]+[smh]$"))]
    ttl: Option<String>,
    /// The same in seconds. Default 3600.
    #[schemars(range(min = 1, max = 86_400))]
    ttl_seconds: Option<u32>,
}

/// An extension that changes the message or the decision's metadata.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Processor {
    /// The extension's id in the registry.
    #[schemars(length(min = 1, max = 255))]
    id: String,
    /// Whether its failure fails the request. Default optional.
    mode: Option<Mode>,
    /// Overrides the registry's configuration, key by key.
    config: Option<Map<String, Value>>,
    /// Runs it only if this is true; as in `fallbacks`.
    when: Option<Map<String, Value>>,
    /// Milliseconds that it may take, instead of the registry's.
    #[schemars(range(min = 10, max = 5_000))]
    timeout_ms: Option<u32>,
    /// Further attempts after a timeout, instead of the registry's.
    #[schemars(range(min = 0, max = 3))]
    retry: Option<u8>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Mode {
    Required,
    Optional,
}

/// An extension that may refuse the request.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Validator {
    /// The extension's id in the registry.
    #[schemars(length(min = 1, max = 255))]
    id: String,
    /// The effect of its refusal or failure. Default block.
    on_fail: Option<OnFail>,
    /// Overrides the registry's configuration, key by key.
    config: Option<Map<String, Value>>,
    /// Runs it only if this is true; as in `fallbacks`.
    when: Option<Map<String, Value>>,
    /// Milliseconds that it may take, instead of the registry's.
    #[schemars(range(min = 10, max = 5_000))]
    timeout_ms: Option<u32>,
    /// Further attempts after a timeout, instead of the registry's.
    #[schemars(range(min = 0, max = 3))]
    retry: Option<u8>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum OnFail {
    Block,
    Warn,
    Ignore,
}

/// When a provider is left out, and when it is tried again. Fed by results.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct CircuitBreaker {
    /// Default false.
    enabled: Option<bool>,
    /// Failures in a row that open it. Default 5.
    #[schemars(range(min = 1, max = 100))]
    failure_threshold: Option<u32>,
    /// Successes that close it again. Default 2.
    #[schemars(range(min = 1, max = 10))]
    success_threshold: Option<u32>,
    /// Milliseconds until it admits trial calls. Default 60000.
    #[schemars(range(min = 1_000, max = 300_000))]
    timeout_ms: Option<u32>,
    /// How many trial calls it admits. Default 3.
    #[schemars(range(min = 1, max = 100))]
    half_open_max_calls: Option<u32>,
    /// Share of failures in the window that opens it. Default 0.5.
    #[schemars(range(min = 0, max = 1))]
    error_rate_threshold: Option<f64>,
    /// Length of the window. Default 60.
    #[schemars(range(min = 1, max = 3_600))]
    error_rate_window_seconds: Option<u32>,
    /// Results in the window before the share counts. Default 5.
    #[schemars(range(min = 1, max = 1_000))]
    error_rate_min_requests: Option<u32>,
    /// A failure opens it if the last call took longer than these milliseconds. Unset: latency has no effect.
    #[schemars(range(min = 1, max = 3_600_000))]
    latency_threshold_ms: Option<u32>,
}

/// A token bucket. Either `requests_per_second`, or `limit` per `window_seconds`.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct RateLimit {
    /// Default false.
    enabled: Option<bool>,
    /// Always the policy; tenant and global limits are configured in the sidecar.
    scope: Option<Scope>,
    /// Tokens that come back each second. Default 100.
    #[schemars(range(min = 1, max = 1_000_000))]
    requests_per_second: Option<f64>,
    /// Tokens that the bucket holds. Default 50.
    #[schemars(range(min = 1, max = 1_000_000))]
    burst: Option<u32>,
    /// Requests per window.
    #[schemars(range(min = 1, max = 1_000_000))]
    limit: Option<u32>,
    /// Length of the window. Default 1.
    #[schemars(range(min = 1, max = 86_400))]
    window_seconds: Option<u32>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Scope {
    Policy,
    Tenant,
    Global,
}

/// Active checks of providers.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct HealthCheck {
    /// Default false.
    enabled: Option<bool>,
    /// The address to check; the sidecar's `health_checks.allow` must list its host. Without one, the address is that
    /// of the provider in `health_checks.endpoints`.
    #[schemars(regex(pattern = r"^https?://[^/]"), length(max = 2_048))]
    url: Option<String>,
    /// Milliseconds between two checks. Default 10000.
    #[schemars(range(min = 1_000, max = 60_000))]
    interval_ms: Option<u32>,
    /// Milliseconds that a check may take. Default 5000.
    #[schemars(range(min = 100, max = 30_000))]
    timeout_ms: Option<u32>,
    /// The older name of `unhealthy_threshold`.
    #[schemars(range(min = 1, max = 100))]
    failure_threshold: Option<u32>,
    /// Failures in a row after which the provider is left out. Default 3.
    #[schemars(range(min = 1, max = 100))]
    unhealthy_threshold: Option<u32>,
    /// Successes in a row after which it is back. Default 2.
    #[schemars(range(min = 1, max = 100))]
    healthy_threshold: Option<u32>,
}

/// How detailed explanations are.
#[derive(Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Explanation {
    detail_level: Option<DetailLevel>,
}

#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum DetailLevel {
    Minimal,
    Detailed,
    Verbose,
}
