//! Policies that cases know by name.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

/// Policies of our own under the platform's names; a file beside the cases goes before them.
#[derive(Debug, Clone)]
pub(super) struct Fixtures {
    dir: Option<PathBuf>,
}

impl Fixtures {
    pub(super) fn built_in() -> Self {
        Self { dir: None }
    }

    /// Of a file of cases: `../fixtures/policies/default_tenant/NAME.json`.
    pub(super) fn beside(cases: &Path) -> Self {
        let dir = cases.parent().and_then(Path::parent);
        Self {
            dir: dir.map(|dir| dir.join("fixtures/policies/default_tenant")),
        }
    }

    pub(super) fn named(&self, name: &str) -> Result<Value, String> {
        let file = self.dir.as_ref().map(|dir| dir.join(format!("{name}.json")));
        if let Some(text) = file.and_then(|file| std::fs::read_to_string(file).ok()) {
            return serde_json::from_str(&text).map_err(|error| format!("fixture {name}: {error}"));
        }
        built_in(name).ok_or_else(|| format!("there is no fixture {name}"))
    }
}

fn built_in(name: &str) -> Option<Value> {
    let two = json!([{"name": "openai", "weight": 60}, {"name": "anthropic", "weight": 40}]);
    let breaker = |enabled: bool| json!({"enabled": enabled, "failure_threshold": 4, "timeout_ms": 30_000});
    let timeout = json!([{"when": {"status": ["timeout"]}, "retry": 2, "to": "anthropic"}]);
    let sticky = json!({"enabled": true, "session_key": "user_id", "ttl": "20m"});
    Some(match name {
        "default" => json!({
            "providers": [{"name": "openai", "weight": 70}, {"name": "anthropic", "weight": 30}],
            "sticky": sticky,
            "fallbacks": [{"when": {"status": ["all_providers_failed"]}, "to": "local_llm"}],
        }),
        "simple_weights" | "basic_weights" | "weights" | "default_weights" => json!({"providers": two}),
        "legacy_format" => json!({
            "weights": {"openai": 0.6, "anthropic": 0.4},
            "fallback": {"provider": "local_llm", "conditions": ["all_providers_failed", "timeout"]},
            "sticky": {"enabled": true, "ttl_seconds": 1200},
        }),
        "sticky_weights" | "sticky" | "sticky_basic" => json!({"providers": two, "sticky": sticky}),
        "sticky_disabled" => json!({
            "providers": two, "sticky": {"enabled": false, "session_key": "user_id", "ttl": "20m"},
        }),
        "simple_fallbacks" | "fallback_chain" | "fallbacks_basic" => {
            json!({"providers": two, "fallbacks": timeout})
        }
        "complex_fallbacks" => json!({
            "providers": [
                {"name": "openai", "weight": 55}, {"name": "anthropic", "weight": 25}, {"name": "cohere", "weight": 20},
            ],
            "fallbacks": [
                {"when": {"status": ["timeout"]}, "retry": 3, "to": "anthropic"},
                {"when": {"status": ["5xx", "503"]}, "retry": 2, "to": "cohere"},
                {"when": {"status": ["rate_limited", "429"]}, "retry": 1, "to": "local_llm"},
                {"when": {"status": ["timeout"], "message_type": ["chat"]}, "retry": 2, "to": "anthropic"},
            ],
        }),
        "circuit_breaker_basic" | "circuit_breaker_enabled" => {
            json!({"providers": two, "circuit_breaker": breaker(true)})
        }
        "circuit_breaker_disabled" => json!({"providers": two, "circuit_breaker": breaker(false)}),
        "rate_limit_basic" | "rate_limit_enabled" => json!({
            "providers": two, "rate_limit": {"enabled": true, "requests_per_second": 20, "burst": 6},
        }),
        "rate_limit_disabled" => json!({
            "providers": two, "rate_limit": {"enabled": false, "requests_per_second": 20, "burst": 6},
        }),
        "extensions_minimal" | "extensions_pre_only" => json!({
            "providers": two, "pre": [{"id": "normalize_text", "mode": "required"}],
        }),
        "extensions_validators_only" => json!({
            "providers": two,
            "validators": [{"id": "pii_guard", "on_fail": "block"}, {"id": "content_filter", "on_fail": "warn"}],
        }),
        "extensions_post_only" => json!({
            "providers": two, "post": [{"id": "mask_pii", "mode": "required"}],
        }),
        "extensions_full" => json!({
            "providers": two,
            "pre": [{"id": "normalize_text", "mode": "required"}, {"id": "add_context", "mode": "optional"}],
            "validators": [
                {"id": "pii_guard", "on_fail": "block"}, {"id": "content_filter", "on_fail": "warn"},
                {"id": "rate_limit_check", "on_fail": "ignore"},
            ],
            "post": [{"id": "mask_pii", "mode": "required"}, {"id": "format_response", "mode": "optional"}],
            "fallbacks": timeout,
        }),
        _ => return None,
    })
}
