//! The valid policy as a document: in the language, and in the normalised form that the platform shows.

use serde_json::{Map, Value, json};

use super::{
    Backoff, BreakerSettings, FallbackRule, HealthCheck, Item, OnFail, Processor, Provider, RateLimit,
    RoutingPolicy, Sticky, Validator,
};

impl RoutingPolicy {
    /// A document in the newest form of the language, which reads as this policy if its weights are fractions.
    pub fn to_json(&self) -> Map<String, Value> {
        let Self {
            version,
            providers,
            fallbacks,
            last_resort,
            sticky,
            circuit_breaker,
            rate_limit,
            pipeline,
            timeout_ms,
            health_check,
            detail_level,
            deprecated,
        } = self;
        let mut document = Map::new();
        let mut put = |key: &str, value: Option<Value>| {
            if let Some(value) = value {
                document.insert(key.to_owned(), value);
            }
        };
        put("version", Some(json!(version)));
        put("providers", Some(providers.iter().map(provider).collect()));
        put(
            "fallbacks",
            Some(
                fallbacks
                    .iter()
                    .map(|rule| Value::Object(rule.to_json()))
                    .collect(),
            ),
        );
        put(
            "fallback",
            last_resort.as_ref().map(|provider| json!({"provider": provider})),
        );
        put("sticky", sticky.as_deref().map(self::sticky));
        put("circuit_breaker", circuit_breaker.as_deref().map(breaker));
        put("rate_limit", rate_limit.as_deref().map(rate));
        if let Some(pipeline) = pipeline {
            put("pre", Some(pipeline.pre.iter().map(processor).collect()));
            put(
                "validators",
                Some(pipeline.validators.iter().map(validator).collect()),
            );
            put("scorers", Some(pipeline.scorers.iter().map(processor).collect()));
            put("post", Some(pipeline.post.iter().map(processor).collect()));
        }
        put("timeout_ms", timeout_ms.map(Into::into));
        put("health_check", health_check.as_deref().map(health));
        put(
            "explanation",
            detail_level.map(|level| json!({"detail_level": level})),
        );
        if let Some(deprecated) = deprecated {
            let object =
                |object: &Map<String, Value>| (!object.is_empty()).then(|| Value::Object(object.clone()));
            put("metadata", object(&deprecated.metadata));
            put("defaults", object(&deprecated.defaults));
            let escalate_on = &deprecated.escalate_on;
            put(
                "escalate_on",
                (!escalate_on.is_empty()).then(|| Value::Array(escalate_on.clone())),
            );
        }
        document
    }

    /// The normalised form, as the platform shows it: weights by name, rules with their `match` text.
    pub fn to_normalised(&self, tenant: &str, policy: &str) -> Value {
        let weights: Map<String, Value> = self
            .providers
            .iter()
            .map(|p| (p.id.to_string(), json!(p.weight)))
            .collect();
        let fallbacks = self.fallbacks.iter().map(|rule| {
            let mut shown = rule.to_json();
            shown.insert("match".into(), rule.match_text().into());
            shown.insert("id".into(), json!(rule.id));
            Value::Object(shown)
        });
        let pipeline = self.pipeline.clone().unwrap_or_default();
        let deprecated = self.deprecated.clone().unwrap_or_default();
        json!({
            "tenant_id": tenant,
            "policy_id": policy,
            "version": self.version,
            "weights": weights,
            "fallbacks": fallbacks.collect::<Value>(),
            "fallback": self.last_resort.as_ref().map(|provider| json!({"provider": provider})),
            "sticky": self.sticky.as_deref().map(|kept| {
                with(sticky(kept), "ttl_seconds", kept.ttl_seconds.into())
            }),
            "rate_limit": self.rate_limit.as_deref().map(rate),
            "circuit_breaker": self.circuit_breaker.as_deref().map(breaker),
            "timeout_ms": self.timeout_ms,
            "health_check": self.health_check.as_deref().map(health),
            "pre": pipeline.pre.iter().map(processor).collect::<Value>(),
            "validators": pipeline.validators.iter().map(validator).collect::<Value>(),
            "post": pipeline.post.iter().map(processor).collect::<Value>(),
            "defaults": deprecated.defaults,
            "escalate_on": deprecated.escalate_on,
            "metadata": deprecated.metadata,
        })
    }
}

impl FallbackRule {
    /// The rule in the language, with its defaults written out.
    pub fn to_json(&self) -> Map<String, Value> {
        let Self {
            id: _,
            when,
            retry,
            backoff,
            to,
        } = self;
        let mut rule = Map::new();
        rule.insert("when".into(), Value::Object(when.to_json()));
        rule.insert("retry".into(), (*retry).into());
        if let Some(Backoff {
            strategy,
            base_ms,
            max_ms,
            jitter,
        }) = backoff
        {
            let backoff =
                json!({"strategy": strategy, "base_ms": base_ms, "max_ms": max_ms, "jitter": jitter});
            rule.insert("backoff".into(), backoff);
        }
        if let Some(to) = to {
            rule.insert("to".into(), json!(to));
        }
        rule
    }

    /// `key:value1|value2`, keys joined by `|`; values that are not texts are left out.
    pub fn match_text(&self) -> String {
        let parts = self.when.to_json().into_iter().filter_map(|(key, value)| {
            let texts = match &value {
                Value::String(text) => text.clone(),
                Value::Array(values) => values
                    .iter()
                    .filter_map(Value::as_str)
                    .collect::<Vec<_>>()
                    .join("|"),
                _ => return None,
            };
            Some(format!("{key}:{texts}"))
        });
        parts.collect::<Vec<_>>().join("|")
    }
}

fn provider(provider: &Provider) -> Value {
    let Provider {
        id,
        weight,
        timeout_ms,
        health_check,
    } = provider;
    let mut shown = json!({"name": id, "weight": weight});
    if let Some(timeout_ms) = timeout_ms {
        shown["timeout_ms"] = (*timeout_ms).into();
    }
    if let Some(check) = health_check {
        shown["health_check"] = health(check);
    }
    shown
}

fn sticky(sticky: &Sticky) -> Value {
    let Sticky {
        enabled,
        session_key,
        ttl,
        ttl_seconds,
    } = sticky;
    match ttl {
        Some(ttl) => json!({"enabled": enabled, "session_key": session_key, "ttl": ttl}),
        None => json!({"enabled": enabled, "session_key": session_key, "ttl_seconds": ttl_seconds}),
    }
}

fn breaker(settings: &BreakerSettings) -> Value {
    let BreakerSettings {
        enabled,
        failure_threshold,
        success_threshold,
        timeout_ms,
        half_open_max_calls,
        error_rate_threshold,
        error_rate_window_seconds,
        error_rate_min_requests,
        latency_threshold_ms,
    } = settings;
    let mut shown = json!({
        "enabled": enabled,
        "failure_threshold": failure_threshold,
        "success_threshold": success_threshold,
        "timeout_ms": timeout_ms,
        "half_open_max_calls": half_open_max_calls,
        "error_rate_threshold": error_rate_threshold,
        "error_rate_window_seconds": error_rate_window_seconds,
        "error_rate_min_requests": error_rate_min_requests,
    });
    if let Some(latency_threshold_ms) = latency_threshold_ms {
        shown["latency_threshold_ms"] = (*latency_threshold_ms).into();
    }
    shown
}

fn rate(limit: &RateLimit) -> Value {
    let RateLimit {
        scope,
        requests_per_second,
        burst,
        window_seconds,
    } = limit;
    if *window_seconds == 1 {
        let spelling = json!({"enabled": true, "scope": scope, "requests_per_second": requests_per_second});
        with(spelling, "burst", (*burst).into())
    } else {
        let window = limit.per_window();
        let spelling =
            json!({"enabled": true, "scope": scope, "limit": window, "window_seconds": window_seconds});
        with(spelling, "burst", (*burst).into())
    }
}

fn with(mut object: Value, key: &str, value: Value) -> Value {
    object[key] = value;
    object
}

fn health(check: &HealthCheck) -> Value {
    let HealthCheck {
        enabled,
        url,
        interval_ms,
        timeout_ms,
        unhealthy_threshold,
        healthy_threshold,
    } = check;
    let shown = json!({
        "enabled": enabled,
        "interval_ms": interval_ms,
        "timeout_ms": timeout_ms,
        "unhealthy_threshold": unhealthy_threshold,
        "healthy_threshold": healthy_threshold,
    });
    match url {
        Some(url) => with(shown, "url", json!(url)),
        None => shown,
    }
}

fn processor(processor: &Processor) -> Value {
    let Processor { item, mode } = processor;
    self::item(item, "mode", json!(mode))
}

fn validator(validator: &Validator) -> Value {
    let Validator { item, on_fail } = validator;
    let on_fail = match on_fail {
        // A text without a meaning must still have none when it is read again.
        OnFail::Unknown => json!("unknown"),
        known => json!(known),
    };
    self::item(item, "on_fail", on_fail)
}

fn item(item: &Item, policy_key: &str, policy: Value) -> Value {
    let Item {
        id,
        when,
        config,
        timeout_ms,
        retry,
    } = item;
    let mut shown = json!({"config": config});
    shown[policy_key] = policy;
    if let Some(id) = id {
        shown["id"] = json!(id);
    }
    if let Some(when) = when {
        shown["when"] = Value::Object(when.to_json());
    }
    if let Some(timeout_ms) = timeout_ms {
        shown["timeout_ms"] = (*timeout_ms).into();
    }
    if let Some(retry) = retry {
        shown["retry"] = (*retry).into();
    }
    shown
}
