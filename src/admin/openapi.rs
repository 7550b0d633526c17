//! The API as an OpenAPI 3.1 document: the data plane and this listener. A test holds it against the routes.

use http::StatusCode;
use serde_json::{Map, Value, json};

use crate::respond::{self, Response};

/// The document.
pub(super) fn page() -> Response {
    respond::json(StatusCode::OK, &document())
}

/// Writes the document.
pub fn document() -> Value {
    let mut paths = Map::new();
    for (path, item) in data_plane().into_iter().chain(admin()) {
        paths.insert(path.to_owned(), item);
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "beamline-sidecar",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Policy lookups and routing decisions for the Beamline Router beside it. Paths under /admin, and /live, /ready and /metrics, are on the admin listener; the others on the data listener. What is not listed here is forwarded to HEIR.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [
            {"url": "http://127.0.0.1:8080", "description": "data plane"},
            {"url": "http://127.0.0.1:9901", "description": "admin"},
        ],
        "paths": paths,
        "components": {
            "schemas": schemas(),
            "securitySchemes": {"admin": {"type": "http", "scheme": "bearer", "description": "The token of admin.token_file; without one, clients on the same machine."}},
        },
    })
}

fn data_plane() -> Vec<(&'static str, Value)> {
    let ids = [path("tenant"), path("policy")];
    vec![
        (
            "/health",
            json!({
                "get": operation("Whether lookups can be answered", &[], None, &[(200, "Ready", "Any"), (503, "Not ready", "Any")]),
            }),
        ),
        (
            "/api/v1/policies/{tenant}",
            json!({
                "get": operation("The policies of a tenant: HEIR's list, or that of memory", &ids[..1], None, &[(200, "The list", "Any"), (400, "Not an id", "Error"), (502, "HEIR failed", "Error"), (503, "HEIR is away and nothing is known", "Error")]),
            }),
        ),
        (
            "/api/v1/policies/{tenant}/{policy}",
            json!({
                "get": operation("A policy, byte for byte as HEIR has it", &with(&ids, header("if-none-match", "An entity tag that the client has")), None, &[(200, "The document", "Policy"), (304, "The client has it", ""), (400, "Not ids", "Error"), (404, "There is none", "Error"), (503, "Too old, or only HEIR knows", "Error")]),
                "put": operation("Write a policy: to HEIR, or into the journal", &with(&ids, header("if-match", "The entity tag that is to be replaced")), Some("Policy"), &[(200, "Replaced, or queued", "Any"), (201, "Created, or queued", "Any"), (400, "Not JSON", "Error"), (412, "Not the version expected", "Error"), (413, "Too large", "Error"), (422, "Mistakes in the policy, every one", "Error"), (503, "HEIR is away and nothing is queued", "Error")]),
                "delete": operation("Delete a policy", &ids, None, &[(204, "Deleted, or queued", ""), (404, "There is none", "Error"), (503, "HEIR is away and nothing is queued", "Error")]),
            }),
        ),
        (
            "/api/v1/policies/{tenant}/{policy}/complexity",
            json!({
                "get": operation("How heavy a policy's pipeline is", &ids, None, &[(200, "The report", "Complexity"), (404, "There is no such policy", "Error")]),
            }),
        ),
        (
            "/api/v1/policies/dry-run",
            json!({
                "post": operation("What would be decided; nothing is remembered or called", &[], Some("DryRun"), &[(200, "The decision, explained", "Any"), (400, "Not such a request", "Error"), (404, "There is no such policy", "Error"), (422, "Mistakes in the policy that was sent", "Error"), (503, "No provider", "Error")]),
            }),
        ),
        (
            "/api/v1/decide",
            json!({
                "post": operation(
                    "Decide which provider a request goes to",
                    &[
                        header("x-beamline-explain", "Asks for an explanation: true, minimal, detailed or verbose"),
                        header("x-beamline-seed", "Repeats a decision; only where decide.allow_seed is on"),
                    ],
                    Some("DecideRequest"),
                    &[
                        (200, "The decision", "DecideResponse"),
                        (400, "Not such a request", "Error"),
                        (403, "The tenant may not ask, or a validator blocked the request", "Error"),
                        (404, "There is no such policy", "Error"),
                        (413, "Too large", "Error"),
                        (429, "A rate limit; Retry-After and X-RateLimit-* say when", "Error"),
                        (500, "An extension failed", "Error"),
                        (503, "No provider is available, or the policies are too old", "Error"),
                        (504, "The request's deadline has passed", "Error"),
                    ],
                ),
            }),
        ),
        (
            "/api/v1/results",
            json!({
                "post": operation("Tell what became of calls to providers, one result or up to 100", &[], Some("ExecResults"), &[(202, "Taken in", "Any"), (400, "Not such results", "Error"), (413, "Too large", "Error")]),
            }),
        ),
    ]
}

fn admin() -> Vec<(&'static str, Value)> {
    let tenant = query("tenant", true, "The tenant");
    let ok = &[(200, "The page", "Any")];
    vec![
        (
            "/live",
            json!({"get": operation("The process answers", &[], None, &[(200, "It does", "Any")])}),
        ),
        (
            "/ready",
            json!({"get": operation("Whether lookups can be answered, how well, and why", &[], None, &[(200, "live or degraded", "Any"), (503, "not_ready", "Any")])}),
        ),
        (
            "/metrics",
            json!({"get": {"summary": "Prometheus text format 0.0.4", "responses": {"200": {"description": "The metrics", "content": {"text/plain": {}}}}}}),
        ),
        (
            "/admin/snapshot",
            json!({"get": secured("Where the snapshot stands, with every problem", &[], ok)}),
        ),
        (
            "/admin/policies",
            json!({"get": secured("Tenants, or the policies of one", &[query("tenant", false, "The tenant")], ok)}),
        ),
        (
            "/admin/policies/{tenant}/{policy}",
            json!({"get": secured("A policy as decisions understand it", &[path("tenant"), path("policy")], &[(200, "The normalised policy", "Any"), (404, "Not in memory", "Error")])}),
        ),
        (
            "/admin/refresh",
            json!({"post": secured("Refresh now", &[query("confirm", false, "true takes an answer that removes much")], &[(200, "The revision reached", "Any"), (409, "Held back", "Error")])}),
        ),
        (
            "/admin/log",
            json!({
                "get": secured("The log filter", &[], ok),
                "put": secured("Change the log filter until the next change of the configuration", &[], ok),
                "post": secured("The same", &[], ok),
            }),
        ),
        (
            "/admin/writes",
            json!({"get": secured("The write journal", &[], ok)}),
        ),
        (
            "/admin/writes/{id}/{action}",
            json!({"post": secured("Settle a write: discard or retry", &[path("id"), path("action")], &[(200, "Settled", "Any"), (404, "There is no such write", "Error")])}),
        ),
        (
            "/admin/sticky",
            json!({
                "get": secured("Sticky sessions: how many, or those of a tenant", &[query("tenant", false, "The tenant"), query("limit", false, "At most so many, up to 1000")], ok),
                "delete": secured("Forget a tenant's sessions, or one", &[tenant.clone(), query("session", false, "The session's value")], ok),
            }),
        ),
        (
            "/admin/providers",
            json!({
                "get": secured("Breakers, estimates and health of a tenant's providers", std::slice::from_ref(&tenant), ok),
                "post": secured("Change a breaker: recover, half-open, reset; or forget-estimate", &[tenant.clone(), query("provider", true, "The provider"), query("action", true, "What to do")], &[(200, "Done", "Any"), (404, "There is no such breaker", "Error")]),
            }),
        ),
        (
            "/admin/rate-limits",
            json!({
                "get": secured("Token buckets: how many, or those of a tenant", &[query("tenant", false, "The tenant"), query("limit", false, "At most so many, up to 1000")], ok),
                "delete": secured("Fill a bucket again", &[query("tenant", false, "The tenant"), query("policy", false, "The policy"), query("scope", false, "tenant or global")], &[(200, "Done", "Any"), (404, "There is no such bucket", "Error")]),
            }),
        ),
        (
            "/admin/extensions",
            json!({"get": secured("Extensions that can be called, those that cannot, and why", &[query("type", false, "pre, validator, scorer or post")], ok)}),
        ),
        (
            "/admin/extensions/health",
            json!({"get": secured("Health of extensions, by id", &[], ok)}),
        ),
        (
            "/admin/extensions/circuit-breakers",
            json!({"get": secured("Breakers and quarantines of extensions, by id", &[], ok)}),
        ),
        (
            "/admin/extensions/{id}",
            json!({"get": secured("One extension, with its health and its last crashes", &[path("id")], &[(200, "The extension", "Any"), (404, "There is none", "Error")])}),
        ),
        (
            "/admin/extensions/{id}/{action}",
            json!({"post": secured("Change an extension: enable, disable, lift", &[path("id"), path("action")], &[(200, "Done", "Any"), (404, "There is none", "Error"), (409, "Its record disables it", "Error")])}),
        ),
        (
            "/admin/extensions/reload",
            json!({"post": secured("Read extensions_dir again and take up what changed", &[], ok)}),
        ),
        (
            "/admin/openapi.json",
            json!({"get": secured("This document", &[], ok)}),
        ),
    ]
}

fn with(parameters: &[Value], more: Value) -> Vec<Value> {
    parameters.iter().cloned().chain([more]).collect()
}

fn parameter(name: &str, place: &str, required: bool, description: &str) -> Value {
    json!({"name": name, "in": place, "required": required, "description": description, "schema": {"type": "string"}})
}

fn path(name: &str) -> Value {
    parameter(name, "path", true, "1 to 255 characters of A-Z a-z 0-9 _ . -")
}

fn query(name: &str, required: bool, description: &str) -> Value {
    parameter(name, "query", required, description)
}

fn header(name: &str, description: &str) -> Value {
    parameter(name, "header", false, description)
}

fn operation(
    summary: &str,
    parameters: &[Value],
    body: Option<&str>,
    answers: &[(u16, &str, &str)],
) -> Value {
    let mut responses = Map::new();
    for (status, description, schema) in answers {
        let mut answer = json!({"description": description});
        if !schema.is_empty() {
            answer["content"] = json!({"application/json": {"schema": reference(schema)}});
        }
        responses.insert(status.to_string(), answer);
    }
    let mut operation = json!({"summary": summary, "responses": responses});
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(body) = body {
        operation["requestBody"] =
            json!({"required": true, "content": {"application/json": {"schema": reference(body)}}});
    }
    operation
}

fn secured(summary: &str, parameters: &[Value], answers: &[(u16, &str, &str)]) -> Value {
    let mut operation = operation(summary, parameters, None, answers);
    operation["responses"]["401"] = json!({"description": "No token, or not the right one", "content": {"application/json": {"schema": reference("Error")}}});
    operation["security"] = json!([{"admin": []}]);
    operation
}

fn reference(schema: &str) -> Value {
    json!({"$ref": format!("#/components/schemas/{schema}")})
}

fn schemas() -> Value {
    let object = json!({"type": "object"});
    let text = json!({"type": "string"});
    json!({
        "Any": {"type": "object", "description": "Described in docs/operations.md"},
        "Policy": {"type": "object", "description": "A policy; `beamline-sidecar schema` prints its JSON Schema"},
        "Error": {
            "type": "object",
            "required": ["ok", "error", "context"],
            "properties": {
                "ok": {"const": false},
                "error": {
                    "type": "object",
                    "required": ["code", "message", "details"],
                    "properties": {"code": text, "message": text, "details": object, "intake_error_code": text},
                },
                "context": {"type": "object", "properties": {"request_id": text, "trace_id": text}},
            },
        },
        "DecideRequest": {
            "description": "The `task` form; the older form has `message` and `context` in place of `task`, `constraints` and `metadata`.",
            "type": "object",
            "properties": {
                "version": {"const": "1"},
                "request_id": {"type": "string", "minLength": 1},
                "tenant_id": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,255}$"},
                "policy_id": {"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,255}$", "default": "default"},
                "task": {
                    "type": "object",
                    "required": ["type"],
                    "properties": {"type": {"type": "string", "minLength": 1}, "payload": object, "payload_ref": text},
                },
                "constraints": object,
                "metadata": {"type": "object", "description": "Over `constraints` in the context that conditions and sessions read"},
                "trace_id": {"type": "string", "description": "32 hex digits or a UUIDv4"},
                "run_id": text, "flow_id": text, "step_id": text,
                "idempotency_key": {"type": "string", "minLength": 1, "maxLength": 256},
                "message": object,
                "context": object,
            },
        },
        "DecideResponse": {
            "type": "object",
            "required": ["ok", "decision", "context"],
            "properties": {
                "ok": {"const": true},
                "decision": {
                    "type": "object",
                    "required": ["provider_id", "priority", "expected_latency_ms", "expected_cost", "reason", "metadata"],
                    "properties": {
                        "provider_id": text,
                        "priority": {"enum": [100, 50, 25, 20]},
                        "expected_latency_ms": {"type": "integer", "minimum": 0},
                        "expected_cost": {"type": "number"},
                        "reason": {"enum": ["sticky", "weighted", "retry", "fallback", "circuit_breaker_fallback"]},
                        "metadata": object,
                        "explanation": reference("Explanation"),
                    },
                },
                "context": {"type": "object", "required": ["request_id"], "properties": {"request_id": text, "trace_id": text}},
            },
        },
        "Explanation": {
            "type": "object",
            "required": ["decision_id", "reason", "provider_id", "policy_id", "policy_version", "priority", "steps", "context"],
            "properties": {
                "decision_id": text, "reason": text, "provider_id": text, "policy_id": text, "policy_version": text,
                "priority": {"type": "integer"},
                "steps": {"type": "array", "items": text},
                "context": object,
                "evidence": object,
                "warnings": {"type": "array", "items": text},
            },
        },
        "DryRun": {
            "type": "object",
            "required": ["tenant_id", "policy_id"],
            "properties": {
                "tenant_id": text, "policy_id": text, "payload": {}, "context": object,
                "policy": {"type": "object", "description": "Tried instead of the stored one"},
            },
        },
        "ExecResult": {
            "type": "object",
            "required": ["tenant_id", "status"],
            "anyOf": [{"required": ["assignment_id"]}, {"required": ["request_id"]}],
            "properties": {
                "version": {"const": "1"}, "tenant_id": text, "assignment_id": text, "request_id": text,
                "status": {"enum": ["success", "error", "timeout", "cancelled"]},
                "provider_id": text, "latency_ms": {"type": "integer", "minimum": 0}, "cost": {"type": "number"},
                "error_code": text, "error_type": text, "error_message": text,
            },
        },
        "ExecResults": {"oneOf": [reference("ExecResult"), {"type": "array", "maxItems": 100, "items": reference("ExecResult")}]},
        "Complexity": {
            "type": "object",
            "required": ["total_extensions", "complexity_score", "complexity_level", "estimated_latency_ms"],
            "properties": {
                "total_extensions": {"type": "integer"}, "pre_count": {"type": "integer"},
                "validators_count": {"type": "integer"}, "post_count": {"type": "integer"},
                "complexity_score": {"type": "integer", "maximum": 100},
                "complexity_level": {"enum": ["low", "medium", "high", "very_high"]},
                "estimated_latency_ms": {"type": "integer"}, "recommended_limits": object,
                "warnings": {"type": "array", "items": text}, "recommendations": {"type": "array", "items": text},
            },
        },
    })
}
