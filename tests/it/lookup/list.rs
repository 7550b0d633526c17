//! A tenant's policies: from HEIR as it is now, from memory when it is away.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use serde_json::json;

use crate::support::{Heir, Say, Scripted, Sidecar};

const ACME: &str = "/api/v1/policies/acme";

#[tokio::test]
async fn a_list_is_what_heir_has_at_this_moment() {
    for level in [Level::Changes, Level::Snapshot, Level::List] {
        let mut heir = Heir::start(level).await;
        heir.client().put_policy("acme/b", "{ \"w\": 1.50 }").await;
        // Nothing but the list itself makes this sidecar refresh after the start.
        let sidecar = Sidecar::start(
            &heir.url(),
            "refresh: {interval_ms: 60000, long_poll_timeout_ms: 60000}",
        );
        sidecar.wait_for("live").await;
        let client = sidecar.client();
        // Bytes order: capitals first, and `-` before letters.
        for (name, body) in [
            ("acme/a", "{\"policy_id\":\"a\",\"z\":1}"),
            ("acme/B", "{\"policy_id\":\"misnamed\"}"),
            ("acme/a-1", "{}"),
            ("other/x", "{}"),
        ] {
            heir.client().put_policy(name, body).await;
        }
        let list = client.get(ACME).await;
        assert_eq!(list.status, StatusCode::OK, "{level}");
        assert_eq!(list.header("content-type"), "application/json");
        assert_eq!(
            list.text(),
            "{\"policies\":[{\"policy_id\":\"B\"},{\"policy_id\":\"a\",\"z\":1},\
             {\"policy_id\":\"a-1\"},{\"policy_id\":\"b\", \"w\": 1.50 }]}",
            "{level}"
        );
        assert_eq!(list.header("x-beamline-freshness"), "fresh");
        assert_eq!(
            (list.header("warning"), list.header("x-beamline-stale")),
            ("", "")
        );
        // What was listed is in memory now, byte for byte as stored.
        assert_eq!(
            client.policy("acme/B").await.text(),
            "{\"policy_id\":\"misnamed\"}",
            "{level}"
        );
        heir.client().delete_policy("acme/a").await;
        assert_eq!(
            policy_ids(&client.get(ACME).await.json()),
            json!(["B", "a-1", "b"])
        );
        assert_eq!(client.policy("acme/a").await.status, StatusCode::NOT_FOUND);
        let nobody = client.get("/api/v1/policies/nobody").await;
        assert_eq!(
            (nobody.status, nobody.text()),
            (StatusCode::OK, "{\"policies\":[]}")
        );
        let head = client.send(Method::HEAD, ACME, &[], "").await.unwrap();
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));

        heir.gone().await;
        let remembered = client.get(ACME).await;
        assert_eq!(remembered.status, StatusCode::OK, "{level}");
        assert_eq!(policy_ids(&remembered.json()), json!(["B", "a-1", "b"]));
        assert_eq!(
            remembered.header("warning"),
            "111 beamline-sidecar \"Revalidation Failed\""
        );
        assert_eq!(remembered.header("x-beamline-stale"), "true");
        let unknown = client.get("/api/v1/policies/stranger").await;
        if level == Level::List {
            assert_eq!(unknown.code(), "heir_unavailable", "only HEIR knows this tenant");
            assert_eq!(unknown.header("retry-after"), "1");
        } else {
            assert_eq!(
                (unknown.status, unknown.text()),
                (StatusCode::OK, "{\"policies\":[]}")
            );
            assert_eq!(unknown.header("x-beamline-stale"), "true");
        }
        sidecar.stop().await;
    }
}

fn policy_ids(list: &serde_json::Value) -> serde_json::Value {
    let policies = list["policies"].as_array().unwrap();
    policies
        .iter()
        .map(|policy| policy["policy_id"].clone())
        .collect()
}

#[tokio::test]
async fn a_list_before_heir_has_ever_answered_is_an_error_and_not_an_empty_list() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.gone().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    let answer = sidecar.client().get(ACME).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(answer.code(), "heir_unavailable");
    assert_eq!(answer.header("retry-after"), "1");
    sidecar.stop().await;
}

#[tokio::test]
async fn both_shapes_of_a_list_are_read() {
    for body in [
        "[{\"policy_id\":\"b\"},{\"policy_id\":\"a\"},{\"no_id\":1},{\"policy_id\":\"../x\"}]",
        "{\"policies\":[{\"policy_id\":\"b\"},{\"policy_id\":\"a\"}],\"total\":2}",
    ] {
        let heir = Scripted::start().await;
        heir.on("GET /health", Say::Json(200, "", "{}".into()));
        heir.on("GET /api/v1/policies/acme ", Say::Json(200, "", body.into()));
        for id in ["a", "b"] {
            let policy = format!("{{\"policy_id\":\"{id}\",\"whole\":true}}");
            heir.on(
                &format!("GET /api/v1/policies/acme/{id} "),
                Say::Json(200, "", policy),
            );
        }
        let sidecar = Sidecar::start(&heir.url(), "refresh: {interval_ms: 60000}");
        sidecar.wait_for("live").await;
        let list = sidecar.client().get(ACME).await;
        assert_eq!(
            list.text(),
            "{\"policies\":[{\"policy_id\":\"a\",\"whole\":true},{\"policy_id\":\"b\",\"whole\":true}]}"
        );
        // An element of a list need not be the stored document, so each was fetched, once.
        assert_eq!(heir.count("GET /api/v1/policies/acme/"), 2);
        sidecar.client().get(ACME).await;
        assert_eq!(heir.count("GET /api/v1/policies/acme/"), 2);
        assert_eq!(heir.count("GET /api/v1/policies/acme "), 2);
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn an_expired_list_is_refused_where_expired_lookups_are() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{}").await;
    let sidecar = Sidecar::start(
        &heir.url(),
        "refresh: {interval_ms: 50, long_poll_timeout_ms: 50, stale_after_ms: 300, expired_after_ms: 600, when_expired: refuse}",
    );
    sidecar.wait_for("live").await;
    heir.gone().await;
    sidecar.wait_for("not_ready").await;
    let refused = sidecar.client().get(ACME).await;
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(refused.code(), "policy_expired");
    assert_eq!(refused.header("retry-after"), "1");
    sidecar.stop().await;
}
