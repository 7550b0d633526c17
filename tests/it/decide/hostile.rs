//! Hostile requests for decisions, over sockets. Each test bears the number of the row it answers.
use std::collections::BTreeSet;

use beamline_sidecar::store::Level;
use serde_json::{Value, json};

use crate::{
    decide::{decide, outcome, request, with_policies},
    support::{Heir, Sidecar, eventually},
};

#[tokio::test]
async fn hostile_04_what_is_code_elsewhere_is_no_id_and_no_field_here() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({"weights": {"a": 1.0}, "sticky": {"enabled": true, "session_key": "user_id"}});
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let client = sidecar.client();
    for text in [
        "../acme/chat",
        "a/b",
        "a'; DROP TABLE policies",
        "${jndi:ldap://x}",
        "{{7*7}}",
        "data.acme",
        "a\u{0}b",
        "chat\n",
    ] {
        for field in ["tenant_id", "policy_id"] {
            let mut asked = request("acme", "chat", json!({}));
            // A policy id may hold dots; then there is simply no such policy.
            asked[field] = text.into();
            let answer = decide(&client, &asked, &[]).await;
            assert!(
                ["400 invalid_request", "404 policy_not_found"].contains(&outcome(&answer).as_str()),
                "{text}: {}",
                answer.text()
            );
        }
        let as_data = request(
            "acme",
            "chat",
            json!({"user_id": text, text: {"var": "context.x"}}),
        );
        assert!(
            outcome(&decide(&client, &as_data, &[]).await).ends_with(" a"),
            "{text}"
        );
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_39_the_same_session_id_in_two_tenants_is_two_sessions() {
    let dir = tempfile::tempdir().unwrap();
    let policy =
        |provider: &str| json!({"weights": {provider: 1.0}, "sticky": {"enabled": true, "session_key": "s"}});
    let sidecar = with_policies(
        dir.path(),
        &[("acme/chat", policy("a")), ("globex/chat", policy("b"))],
        "",
    );
    let client = sidecar.client();
    let session = |tenant: &str| request(tenant, "chat", json!({"s": "shared"}));
    assert_eq!(
        outcome(&decide(&client, &session("acme"), &[]).await),
        "weighted a"
    );
    assert_eq!(
        outcome(&decide(&client, &session("globex"), &[]).await),
        "weighted b"
    );
    for _ in 0..3 {
        assert_eq!(outcome(&decide(&client, &session("acme"), &[]).await), "sticky a");
        assert_eq!(
            outcome(&decide(&client, &session("globex"), &[]).await),
            "sticky b"
        );
    }
    let claimed = request("globex", "chat", json!({"s": "shared", "tenant_id": "acme"}));
    assert_eq!(
        outcome(&decide(&client, &claimed, &[]).await),
        "sticky b",
        "a context claims no other tenant"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_40_no_number_of_sessions_tenants_or_providers_grows_a_table_or_a_scrape() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({
        "weights": {"a": 1.0}, "sticky": {"enabled": true, "session_key": "s"},
        "rate_limit": {"enabled": true, "requests_per_second": 1000000, "burst": 1000000},
    });
    let yaml = "decide: {max_sticky_sessions: 50, max_rate_limit_buckets: 10, max_providers: 10, tenant_limit: {requests_per_second: 1000, burst: 1000}}";
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], yaml);
    let client = sidecar.client();
    for n in 0..300 {
        assert_eq!(
            decide(&client, &request("acme", "chat", json!({"s": n})), &[])
                .await
                .status,
            200
        );
        assert_eq!(
            decide(&client, &request(&format!("made-up-{n}"), "chat", json!({})), &[])
                .await
                .status,
            404
        );
        for (tenant, status) in [(format!("made-up-{n}"), 400), ("acme".to_owned(), 202)] {
            let result = json!({"tenant_id": tenant, "request_id": format!("r{n}"), "status": "timeout", "provider_id": format!("p{n}")});
            let answer = client.post("/api/v1/results", result.to_string()).await;
            assert_eq!(answer.status, status);
        }
    }
    let admin = sidecar.admin();
    let page = admin.get("/admin/sticky").await.json();
    assert_eq!((&page["sessions"], &page["evicted"]), (&json!(50), &json!(250)));
    assert!(
        admin.get("/admin/rate-limits").await.json()["buckets"]
            .as_u64()
            .unwrap()
            <= 10
    );
    let scrape = admin.get("/metrics").await.text().to_owned();
    assert_eq!(
        sidecar.metric("beamline_sidecar_sticky_evictions_total").await,
        250.0
    );
    assert!(
        !scrape.contains("made-up"),
        "an id that a client made up is no label"
    );
    let providers: BTreeSet<&str> = scrape
        .split("provider_id=\"")
        .skip(1)
        .filter_map(|rest| rest.split('"').next())
        .collect();
    assert!(providers.len() <= 201, "{}", providers.len());
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_43_a_policy_that_may_have_been_revoked_decides_no_longer_than_is_allowed() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client()
        .put_policy("acme/chat", r#"{"weights":{"a":1.0}}"#)
        .await;
    let yaml = "refresh: {interval_ms: 50, long_poll_timeout_ms: 100, stale_after_ms: 300, expired_after_ms: 6000, when_expired: refuse}";
    let sidecar = Sidecar::start(&heir.url(), yaml);
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    let asked = request("acme", "chat", json!({}));
    eventually("it is decided on", || async {
        decide(&client, &asked, &[]).await.status == 200
    })
    .await;
    heir.gone().await;
    eventually("the answer is marked stale", || async {
        decide(&client, &asked, &[]).await.header("x-beamline-freshness") == "stale"
    })
    .await;
    eventually("it is refused", || async {
        outcome(&decide(&client, &asked, &[]).await) == "503 policy_expired"
    })
    .await;
    let refused = decide(&client, &asked, &[]).await;
    assert_eq!(refused.header("retry-after"), "1");
    heir.back().await;
    eventually("it is decided on again", || async {
        decide(&client, &asked, &[]).await.status == 200
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_45_when_all_are_open_the_answer_is_declared_and_few_are_let_through_again() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({
        "providers": [{"name": "a", "weight": 50}, {"name": "b", "weight": 50}],
        "circuit_breaker": {"enabled": true, "failure_threshold": 1, "timeout_ms": 5000, "half_open_max_calls": 2},
    });
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let client = sidecar.client();
    let asked = request("acme", "chat", json!({}));
    let mut chosen = BTreeSet::new();
    while chosen.len() < 2 {
        chosen.insert(outcome(&decide(&client, &asked, &[]).await));
    }
    let failed: Vec<Value> = ["a", "b"]
        .iter()
        .map(|p| json!({"tenant_id": "acme", "request_id": p, "status": "timeout", "provider_id": p}))
        .collect();
    assert_eq!(
        client
            .post("/api/v1/results", json!(failed).to_string())
            .await
            .status,
        202
    );
    let refused = decide(&client, &asked, &[]).await;
    assert_eq!(outcome(&refused), "503 decision_failed");
    let seconds: u32 = refused.header("retry-after").parse().unwrap();
    assert!((1..=5).contains(&seconds), "{seconds}");
    eventually("somebody may try", || async {
        decide(&client, &asked, &[]).await.status == 200
    })
    .await;
    let mut let_through = 1;
    for _ in 0..50 {
        let_through += u32::from(decide(&client, &asked, &[]).await.status == 200);
    }
    assert!(
        let_through <= 4,
        "{let_through} of 51: two breakers with two calls each"
    );
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn hostile_50_however_many_ask_at_once_a_burst_is_a_burst() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({"weights": {"a": 1.0}, "rate_limit": {"enabled": true, "limit": 1, "window_seconds": 3600, "burst": 7}});
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "runtime: {workers: 4}");
    let asking: Vec<_> = (0..60)
        .map(|_| {
            let client = sidecar.client();
            tokio::spawn(
                async move { outcome(&decide(&client, &request("acme", "chat", json!({})), &[]).await) },
            )
        })
        .collect();
    let mut passed = 0;
    for one in asking {
        passed += u32::from(one.await.unwrap() == "weighted a");
    }
    assert_eq!(passed, 7);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_51_the_names_of_operations_are_no_ids() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    let policy = r#"{"weights":{"a":1.0}}"#;
    for name in [
        "dry-run/chat",
        "acme/dry-run",
        "acme/complexity",
        "complexity/chat",
        "acme/dry%2Drun",
        "acme/complexit%79",
    ] {
        assert_eq!(client.put_policy(name, policy).await.status, 400, "{name}");
        assert_eq!(client.policy(name).await.status, 400, "{name}");
        assert_eq!(
            heir.client().put_policy(name, policy).await.status,
            400,
            "the store keeps them neither: {name}"
        );
    }
    assert_eq!(client.get("/api/v1/policies/dry-run").await.status, 405);
    for (tenant, policy_id) in [("dry-run", "chat"), ("acme", "complexity")] {
        assert_eq!(
            decide(&client, &request(tenant, policy_id, json!({})), &[])
                .await
                .status,
            400
        );
    }
    assert_eq!(client.put_policy("acme/health", policy).await.status, 201);
    assert_eq!(
        client.get("/api/v1/policies/acme/health/complexity").await.json()["complexity_score"],
        0
    );
    sidecar.stop().await;
}
