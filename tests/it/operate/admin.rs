//! The admin listener: probes, metrics, and what an operator sees and does.

use std::fs;

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use serde_json::{Value, json};

use crate::support::{Heir, Scripted, Sidecar, eventually};

/// Without the last error, which is only there while the sidecar is not live.
async fn ready(sidecar: &Sidecar) -> (u16, Value) {
    let answer = sidecar.admin().get("/ready").await;
    let mut page = answer.json();
    let error = page.as_object_mut().and_then(|page| page.remove("last_error"));
    assert!(error.is_none() || page["state"] != "live", "{error:?}");
    (answer.status.as_u16(), page)
}

fn judged(status: u16, state: &str, reason: &str) -> (u16, Value) {
    (status, json!({"state": state, "reason": reason}))
}

#[tokio::test]
async fn ready_tells_how_well_and_why_and_live_only_that_it_runs() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{}").await;
    heir.gone().await;
    let sidecar = Sidecar::start(
        &heir.url(),
        "refresh: {interval_ms: 50, long_poll_timeout_ms: 50, stale_after_ms: 10000, expired_after_ms: 600000}",
    );
    let none = "neither HEIR nor the disk nor policies_dir has given a snapshot yet";
    assert_eq!(ready(&sidecar).await, judged(503, "not_ready", none));
    let health = sidecar.client().get("/health").await;
    assert_eq!(
        (health.status, health.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "heir_unavailable")
    );
    assert_eq!(health.header("retry-after"), "1");
    let live = sidecar.admin().get("/live").await;
    assert_eq!(
        (live.status, live.text()),
        (StatusCode::OK, "{\"status\":\"live\"}")
    );
    heir.back().await;
    sidecar.wait_for("live").await;
    assert_eq!(
        ready(&sidecar).await,
        judged(200, "live", "HEIR confirms the snapshot")
    );
    let health = sidecar.client().get("/health").await;
    assert_eq!(
        (health.status, health.text()),
        (StatusCode::OK, "{\"state\":\"live\",\"status\":\"ok\"}")
    );
    heir.gone().await;
    sidecar.wait_for("degraded").await;
    assert_eq!(
        ready(&sidecar).await,
        judged(200, "degraded", "HEIR is away; memory is served")
    );
    eventually("it is stale", || async {
        ready(&sidecar).await
            == judged(
                200,
                "degraded",
                "HEIR has not confirmed the snapshot for longer than refresh.stale_after_ms",
            )
    })
    .await;
    assert_eq!(sidecar.client().get("/health").await.status, StatusCode::OK);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_sidecar_that_stops_answers_and_says_that_it_is_not_ready() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{}").await;
    let sidecar = Sidecar::try_start(&format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\nheir: {{url: '{}'}}\nshutdown: {{lame_duck_ms: 60000}}",
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    sidecar.begin_stop();
    sidecar.wait_for("not_ready").await;
    assert_eq!(
        ready(&sidecar).await,
        judged(503, "not_ready", "the sidecar is stopping")
    );
    assert_eq!(sidecar.client().get("/health").await.status, StatusCode::OK);
    let answer = sidecar.client().policy("acme/chat").await;
    assert_eq!(
        (answer.status, answer.header("connection")),
        (StatusCode::OK, "close")
    );
    sidecar.abort().await;
}

#[tokio::test]
async fn ready_never_promises_what_lookups_refuse() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.gone().await;
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("acme")).unwrap();
    fs::write(folder.path().join("acme/chat.json"), "{}").unwrap();
    let sidecar = Sidecar::start(
        &heir.url(),
        &format!(
            "refresh: {{stale_after_ms: 1, expired_after_ms: 300, when_expired: refuse}}\npolicies_dir: {}",
            folder.path().display()
        ),
    );
    eventually("lookups are refused", || async {
        sidecar.client().policy("acme/chat").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    let expired = "the snapshot has expired and refresh.when_expired is refuse";
    assert_eq!(ready(&sidecar).await, judged(503, "not_ready", expired));
    sidecar.stop().await;
}

#[tokio::test]
async fn the_snapshot_page_shows_where_everything_stands() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client()
        .put_policy("acme/chat", "{\"weights\":{\"a\":1.0}}")
        .await;
    heir.client()
        .put_policy("other/chat", "{\"weights\":{\"a\":1.0}}")
        .await;
    heir.client()
        .put(
            "/api/v1/extensions/e1",
            "{\"id\":\"e1\",\"type\":\"pre\",\"subject\":\"s\"}",
        )
        .await;
    let sidecar = Sidecar::start(
        &heir.url(),
        "refresh: {interval_ms: 50, long_poll_timeout_ms: 100}",
    );
    sidecar.wait_for("live").await;
    let admin = sidecar.admin();
    let page = admin.get("/admin/snapshot").await.json();
    let mut keys: Vec<&str> = page.as_object().unwrap().keys().map(String::as_str).collect();
    keys.sort_unstable();
    assert_eq!(
        keys,
        [
            "age_ms",
            "bad_files",
            "bytes",
            "chain",
            "coverage",
            "extension_problems",
            "extensions",
            "extensions_ready",
            "freshness",
            "generation",
            "heir",
            "level",
            "policies",
            "problem_count",
            "problems",
            "ready",
            "refresh",
            "revision",
            "source",
            "tenants",
            "warning_count",
            "warnings",
        ]
    );
    for (pointer, expected) in [
        ("/policies", json!(2)),
        ("/tenants", json!(2)),
        ("/extensions", json!(1)),
        ("/bytes", json!(42)),
        ("/revision", json!(3)),
        ("/level", json!("changes")),
        ("/coverage", json!("whole")),
        ("/freshness", json!("fresh")),
        ("/source", json!("heir")),
        ("/problem_count", json!(0)),
        ("/problems", json!([])),
        ("/heir/url", json!(heir.url())),
        ("/heir/up", json!(true)),
        ("/heir/breaker", json!("closed")),
        ("/ready/state", json!("live")),
        ("/refresh/state", json!("live")),
        ("/refresh/level", json!("changes")),
        ("/refresh/last_error", Value::Null),
    ] {
        assert_eq!(page.pointer(pointer), Some(&expected), "{pointer} in {page}");
    }
    assert!(page["age_ms"].as_u64().unwrap() < 5_000);
    assert!(page["refresh"]["last_success_unix_ms"].as_u64().unwrap() > 1_700_000_000_000);

    assert_eq!(
        admin.get("/admin/policies").await.json(),
        json!({"tenants": [{"tenant_id": "acme", "policies": 1}, {"tenant_id": "other", "policies": 1}]})
    );
    let etag = heir.client().policy("acme/chat").await.header("etag").to_owned();
    assert_eq!(
        admin.get("/admin/policies?tenant=acme").await.json(),
        json!({"tenant_id": "acme", "policies": [
            {"policy_id": "chat", "etag": etag, "revision": 1, "bytes": 21, "source": "heir"}
        ]})
    );
    let nobody = admin.get("/admin/policies?tenant=nobody").await;
    assert_eq!(
        (nobody.status, nobody.code().as_str()),
        (StatusCode::NOT_FOUND, "not_found")
    );

    heir.gone().await;
    sidecar.wait_for("degraded").await;
    let page = admin.get("/admin/snapshot").await.json();
    assert_eq!(
        (&page["refresh"]["state"], &page["heir"]["up"]),
        (&json!("interrupted"), &json!(false))
    );
    assert!(
        page["refresh"]["last_error"].as_str().unwrap().contains("HEIR"),
        "{page}"
    );
    assert_eq!((&page["policies"], &page["revision"]), (&json!(2), &json!(3)));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_refresh_on_request_reaches_what_heir_has_and_can_confirm_a_loss() {
    let mut heir = Heir::start(Level::Snapshot).await;
    for index in 0..20 {
        heir.client().put_policy(&format!("acme/p{index}"), "{}").await;
    }
    let sidecar = Sidecar::start(&heir.url(), "refresh: {interval_ms: 3600000}");
    sidecar.wait_for("live").await;
    // It looks thrice before it knows that this HEIR has no changes; then the next time is an hour off.
    eventually("it has found out what HEIR can do", || async {
        sidecar
            .metric("beamline_sidecar_refresh_total{outcome=\"unchanged\"}")
            .await
            >= 2.0
    })
    .await;
    let admin = sidecar.admin();
    heir.client().put_policy("acme/new", "{}").await;
    let page = admin.post("/admin/refresh", "").await;
    assert_eq!(page.status, StatusCode::OK);
    let page = page.json();
    assert_eq!(
        (&page["ok"], &page["outcome"], &page["revision"]),
        (&json!(true), &json!("changed"), &json!(21))
    );
    assert_eq!(sidecar.client().policy("acme/new").await.status, StatusCode::OK);
    assert_eq!(
        admin.post("/admin/refresh?confirm=false", "").await.json()["outcome"],
        "unchanged"
    );
    let nonsense = admin.post("/admin/refresh?confirm=perhaps", "").await;
    assert_eq!(
        (nonsense.status, nonsense.code().as_str()),
        (StatusCode::BAD_REQUEST, "invalid_request")
    );

    for index in 0..20 {
        heir.client().delete_policy(&format!("acme/p{index}")).await;
    }
    let held = admin.post("/admin/refresh", "").await;
    assert_eq!(
        (held.status, held.code().as_str()),
        (StatusCode::CONFLICT, "conflict"),
        "{}",
        held.text()
    );
    assert_eq!(ready(&sidecar).await.1["state"], "degraded");
    assert_eq!(sidecar.client().policy("acme/p0").await.status, StatusCode::OK);
    let confirmed = admin.post("/admin/refresh?confirm=true", "").await.json();
    assert_eq!(
        (&confirmed["outcome"], &confirmed["revision"]),
        (&json!("changed"), &json!(41))
    );
    assert_eq!(
        sidecar.client().policy("acme/p0").await.status,
        StatusCode::NOT_FOUND
    );
    heir.gone().await;
    let away = admin.post("/admin/refresh", "").await;
    assert_eq!(
        (away.status, away.code().as_str()),
        (StatusCode::SERVICE_UNAVAILABLE, "heir_unavailable")
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn pages_that_are_not_there_and_methods_that_are_not_taken_are_told_apart() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    let admin = sidecar.admin();
    for (method, path, status) in [
        (Method::POST, "/live", 405),
        (Method::PUT, "/ready", 405),
        (Method::DELETE, "/metrics", 405),
        (Method::POST, "/admin/snapshot", 405),
        (Method::GET, "/admin/refresh", 405),
        (Method::DELETE, "/admin/log", 405),
        (Method::GET, "/", 404),
        (Method::GET, "/admin", 404),
        (Method::GET, "/admin/nothing", 404),
        (Method::GET, "/health", 404),
        (Method::GET, "/api/v1/policies/acme/chat", 404),
        (Method::HEAD, "/live", 200),
        (Method::HEAD, "/metrics", 200),
    ] {
        let answer = admin.send(method.clone(), path, &[], "").await.unwrap();
        assert_eq!(answer.status.as_u16(), status, "{method} {path}");
        match status {
            405 => assert_eq!(answer.code(), "method_not_allowed"),
            404 => assert_eq!(answer.code(), "not_found"),
            _ => assert!(answer.body.is_empty()),
        }
    }
    assert_eq!(
        admin.get("/metrics").await.header("content-type"),
        "text/plain; version=0.0.4; charset=utf-8"
    );
    sidecar.stop().await;
}
