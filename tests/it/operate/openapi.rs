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

/// The path of each meaning that a path of the data plane can have. One that is added does not compile until it is here.
fn documented(target: &Target<'_>) -> Option<&'static str> {
    match target {
        Target::Policy { .. } => Some("/api/v1/policies/{tenant}/{policy}"),
        Target::Tenant(_) => Some("/api/v1/policies/{tenant}"),
        Target::Health => Some("/health"),
        Target::Decide => Some("/api/v1/decide"),
        Target::Results => Some("/api/v1/results"),
        Target::DryRun => Some("/api/v1/policies/dry-run"),
        Target::Complexity { .. } => Some("/api/v1/policies/{tenant}/{policy}/complexity"),
        Target::Other => None,
    }
}

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
            .replace("{id}", "1")
            .replace("{action}", "x");
        let is_ops = path.starts_with("/admin") || ["/live", "/ready", "/metrics"].contains(&path.as_str());
        let client = if is_ops { sidecar.admin() } else { sidecar.client() };
        if !is_ops {
            let uri = concrete.parse().unwrap();
            assert_eq!(documented(&Target::parse(&uri).unwrap()), Some(path.as_str()));
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
    for reference in text.split("\"#/components/schemas/").skip(1) {
        let name = reference.split('"').next().unwrap();
        assert!(document["components"]["schemas"][name].is_object(), "{name}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn answers_are_of_the_form_that_the_document_gives() {
    let document = beamline_sidecar::admin::openapi();
    let schema = |name: &str| {
        let mut schema = document["components"]["schemas"][name].clone();
        schema["components"] = document["components"].clone();
        jsonschema::validator_for(&schema).unwrap()
    };
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
