//! The OpenAPI document against the routes, in both directions.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::collections::BTreeSet;

use beamline_sidecar::route::Target;
use http::Method;
use serde_json::{Value, json};

use crate::decide::with_policies;

fn methods(item: &Value) -> BTreeSet<String> {
    item.as_object()
        .unwrap()
        .keys()
        .map(|method| method.to_uppercase())
        .collect()
}

#[tokio::test]
async fn the_document_is_what_the_routes_do() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = with_policies(dir.path(), &[("acme/chat", json!({"weights": {"a": 1.0}}))], "");
    let document = sidecar.admin().get("/admin/openapi.json").await.json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut data_plane = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        let concrete = path
            .replace("{tenant}", "acme")
            .replace("{policy}", "chat")
            .replace("{provider}", "alpha")
            .replace("{id}", "1");
        let is_ops = path.starts_with("/admin") || ["/live", "/ready", "/metrics"].contains(&path.as_str());
        let client = if is_ops { sidecar.admin() } else { sidecar.client() };
        if !is_ops {
            let uri = concrete.parse().unwrap();
            assert_eq!(Target::parse(&uri).unwrap().template(), Some(path.as_str()));
            data_plane.insert(path.clone());
        }
        // A method that nothing takes is answered with those that are taken.
        let answer = client.send(Method::OPTIONS, &concrete, &[], "").await.unwrap();
        assert_eq!(answer.status, 405, "{path}: {}", answer.text());
        let allowed: BTreeSet<String> = answer
            .header("allow")
            .split(", ")
            .filter(|m| *m != "HEAD")
            .map(ToOwned::to_owned)
            .collect();
        assert_eq!(allowed, methods(item), "{path}");
    }
    assert_eq!(data_plane.len(), 7, "every meaning but `Other` is described");
    let text = document.to_string();
    let wants_token = |path: &str| {
        let operations = document["paths"][path].as_object().unwrap().values();
        let secured: BTreeSet<bool> = operations
            .map(|operation| operation["security"] == json!([{"admin": []}]))
            .collect();
        secured == BTreeSet::from([true])
    };
    for (path, item) in document["paths"].as_object().unwrap() {
        assert_eq!(wants_token(path), path.starts_with("/admin/"), "{path}");
        for operation in item.as_object().unwrap().values() {
            assert!(operation["summary"].is_string(), "{path}");
            let named: BTreeSet<&str> = operation["parameters"]
                .as_array()
                .into_iter()
                .flatten()
                .filter(|parameter| parameter["in"] == "path")
                .map(|parameter| parameter["name"].as_str().unwrap())
                .collect();
            let wanted: BTreeSet<&str> = path
                .split('/')
                .filter_map(|segment| segment.strip_prefix('{')?.strip_suffix('}'))
                .collect();
            assert_eq!(named, wanted, "{path}");
        }
    }
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    sidecar.stop().await;
}

/// The schema of an answer with the components that it refers to.
fn validator(document: &Value, schema: &Value) -> jsonschema::Validator {
    let mut schema = schema.clone();
    schema["components"] = document["components"].clone();
    jsonschema::validator_for(&schema).unwrap()
}

#[tokio::test]
async fn pages_are_of_the_form_that_the_document_gives() {
    let document = beamline_sidecar::admin::openapi();
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({"weights": {"alpha": 1.0}, "circuit_breaker": {"enabled": true}, "surprise": 1});
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let asked = crate::decide::request("acme", "chat", json!({"session_id": "s"}));
    crate::decide::decide(&sidecar.client(), &asked, &[]).await;
    let result = json!({"tenant_id": "acme", "request_id": "r", "status": "success", "provider_id": "alpha", "latency_ms": 5});
    sidecar.client().post("/api/v1/results", result.to_string()).await;
    let admin = sidecar.admin();
    let mut validated = 0;
    for path in document["paths"].as_object().unwrap().keys() {
        let concrete = path.replace("{tenant}", "acme").replace("{policy}", "chat");
        if !(path.starts_with("/admin/") || path == "/live" || path == "/ready") || concrete.contains('{') {
            continue;
        }
        let Some(schema) =
            document["paths"][path].pointer("/get/responses/200/content/application~1json/schema")
        else {
            continue;
        };
        if schema.is_boolean() {
            continue;
        }
        for query in ["", "?tenant=acme"] {
            let answer = admin.get(&format!("{concrete}{query}")).await;
            if answer.status != 200 {
                continue;
            }
            let page = answer.json();
            if let Err(error) = validator(&document, schema).validate(&page) {
                panic!("{concrete}{query}: {error} in {page}");
            }
            validated += 1;
        }
    }
    assert!(validated >= 15, "{validated}");
    sidecar.stop().await;
}

#[tokio::test]
async fn answers_are_of_the_form_that_the_document_gives() {
    let document = beamline_sidecar::admin::openapi();
    let schema = |name: &str| validator(&document, &document["components"]["schemas"][name]);
    let dir = tempfile::tempdir().unwrap();
    let sidecar = with_policies(dir.path(), &[("acme/chat", json!({"weights": {"a": 1.0}}))], "");
    let asked = crate::decide::request("acme", "chat", json!({"detail_level": "verbose"}));
    schema("DecideRequest").validate(&asked).unwrap();
    let answer = crate::decide::decide(&sidecar.client(), &asked, &[]).await;
    schema("DecideResponse").validate(&answer.json()).unwrap();
    let refused = sidecar.client().post("/api/v1/decide", "{}").await;
    schema("Error").validate(&refused.json()).unwrap();
    assert!(schema("DecideResponse").validate(&refused.json()).is_err());
    let report = sidecar
        .client()
        .get("/api/v1/policies/acme/chat/complexity")
        .await;
    schema("Complexity").validate(&report.json()).unwrap();
    sidecar.stop().await;
}
