//! Results, what they do to breakers and estimates, and the operator's view of it.
use serde_json::{Value, json};

use crate::{
    decide::{decide, outcome, request, with_policies},
    support::{Answer, Sidecar},
};

fn guarded() -> Value {
    json!({
        "providers": [{"name": "alpha", "weight": 50}, {"name": "beta", "weight": 50}],
        "circuit_breaker": {"enabled": true, "failure_threshold": 3, "timeout_ms": 300_000},
        "fallbacks": [{"when": {"status": ["circuit_breaker_open"]}, "to": "spare"}],
    })
}

async fn post(sidecar: &Sidecar, results: &Value) -> Answer {
    sidecar
        .client()
        .post("/api/v1/results", results.to_string())
        .await
}

async fn fail(sidecar: &Sidecar, provider: &str, times: u32) {
    let results: Vec<Value> = (0..times)
        .map(|n| json!({"version": "1", "tenant_id": "acme", "assignment_id": format!("{provider}-{n}"), "status": "timeout", "provider_id": provider}))
        .collect();
    let answer = post(sidecar, &json!(results)).await;
    assert_eq!(
        (answer.status.as_u16(), &answer.json()["accepted"]),
        (202, &json!(times))
    );
}

#[tokio::test]
async fn failures_open_a_breaker_and_its_provider_is_avoided_until_an_operator_says_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = with_policies(dir.path(), &[("acme/chat", guarded())], "");
    let client = sidecar.client();
    let asked = request("acme", "chat", json!({}));
    // A provider's breaker has the policy's settings once the policy has chosen it.
    let mut chosen = std::collections::BTreeSet::new();
    while chosen.len() < 2 {
        chosen.insert(outcome(&decide(&client, &asked, &[]).await));
    }
    fail(&sidecar, "alpha", 3).await;
    for _ in 0..32 {
        assert_eq!(outcome(&decide(&client, &asked, &[]).await), "weighted beta");
    }
    let answer = decide(&client, &asked, &[("x-beamline-explain", "detailed")]).await;
    let candidates = &answer.json()["decision"]["explanation"]["evidence"]["candidates"];
    assert_eq!(
        candidates[0],
        json!({"provider_id": "alpha", "weight": 0.5, "removed_by": "circuit_breaker_open", "breaker": "open"})
    );
    fail(&sidecar, "beta", 3).await;
    assert_eq!(outcome(&decide(&client, &asked, &[]).await), "fallback spare");

    let admin = sidecar.admin();
    let page = admin.get("/admin/providers?tenant=acme").await.json();
    assert_eq!(page["providers"][0]["breaker"]["state"], "open");
    assert_eq!(
        sidecar
            .metric("router_circuit_breaker_state{provider_id=\"alpha\",state=\"open\",tenant_id=\"acme\"}")
            .await,
        1.0
    );
    assert_eq!(sidecar.metric("router_circuit_breaker_events_total{event_type=\"failure\",provider_id=\"alpha\",tenant_id=\"acme\"}").await, 3.0);
    let transitions = "router_circuit_breaker_state_transitions_total{from=\"closed\",provider_id=\"alpha\",state=\"open\",tenant_id=\"acme\",to=\"open\"}";
    assert_eq!(sidecar.metric(transitions).await, 1.0);
    let closed = admin
        .post("/admin/providers/acme/alpha/breaker/reset", "")
        .await
        .json();
    assert_eq!(
        (&closed["was"], &closed["breaker"]["state"]),
        (&json!("open"), &json!("closed"))
    );
    assert_eq!(outcome(&decide(&client, &asked, &[]).await), "weighted alpha");
    assert_eq!(
        admin
            .post("/admin/providers/acme/nobody/breaker/reset", "")
            .await
            .status,
        404
    );
    assert_eq!(
        admin
            .post("/admin/providers/acme/alpha/breaker/x", "")
            .await
            .status,
        404
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_provider_whose_name_has_separators_is_reached_by_its_encoded_name() {
    let dir = tempfile::tempdir().unwrap();
    let breaker = json!({"enabled": true, "failure_threshold": 3, "timeout_ms": 300_000});
    let policy = json!({"weights": {"openai/gpt-4o": 0.5, "eu:spare": 0.5}, "circuit_breaker": breaker});
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let asked = request("acme", "chat", json!({}));
    let mut chosen = std::collections::BTreeSet::new();
    while chosen.len() < 2 {
        chosen.insert(outcome(&decide(&sidecar.client(), &asked, &[]).await));
    }
    let admin = sidecar.admin();
    for (name, encoded) in [("openai/gpt-4o", "openai%2Fgpt-4o"), ("eu:spare", "eu:spare")] {
        fail(&sidecar, name, 3).await;
        for (change, was, state) in [
            ("half-open", "open", "half_open"),
            ("close", "half_open", "closed"),
            ("reset", "closed", "closed"),
        ] {
            let path = format!("/admin/providers/acme/{encoded}/breaker/{change}");
            let changed = admin.post(&path, "").await.json();
            assert_eq!(
                (&changed["was"], &changed["breaker"]["state"]),
                (&json!(was), &json!(state)),
                "{path}: {changed}"
            );
        }
        let forgotten = admin
            .delete(&format!("/admin/providers/acme/{encoded}/estimate"))
            .await;
        assert_eq!(
            forgotten.json(),
            json!({"ok": true, "forgotten": true}),
            "{encoded}"
        );
    }
    let encoded = admin
        .post("/admin/providers/acme/eu%3Aspare/breaker/close", "")
        .await;
    assert_eq!(encoded.status, 200);
    // Decoded once, and no more.
    let twice = admin
        .post("/admin/providers/acme/openai%252Fgpt-4o/breaker/close", "")
        .await;
    assert_eq!(twice.status, 404);
    sidecar.stop().await;
}

#[tokio::test]
async fn what_calls_took_is_what_is_expected_and_a_result_counts_once() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = with_policies(
        dir.path(),
        &[
            ("acme/chat", json!({"weights": {"alpha": 1.0}})),
            ("globex/chat", json!({"weights": {"alpha": 1.0}})),
        ],
        "",
    );
    let result = json!({"version": "1", "tenant_id": "acme", "request_id": "r", "status": "success", "provider_id": "alpha", "latency_ms": 120, "cost": 0.25});
    assert_eq!(
        post(&sidecar, &result).await.json(),
        json!({"ok": true, "accepted": 1, "duplicates": 0})
    );
    assert_eq!(
        post(&sidecar, &result).await.json(),
        json!({"ok": true, "accepted": 0, "duplicates": 1})
    );
    let mut other = result.clone();
    other["tenant_id"] = "globex".into();
    assert_eq!(post(&sidecar, &other).await.json()["accepted"], 1);
    let decision = decide(&sidecar.client(), &request("acme", "chat", json!({})), &[])
        .await
        .json()["decision"]
        .clone();
    assert_eq!(
        (&decision["expected_latency_ms"], &decision["expected_cost"]),
        (&json!(120), &json!(0.25))
    );
    let page = sidecar.admin().get("/admin/providers?tenant=acme").await.json();
    assert_eq!(page["providers"][0]["estimate"]["results"], 1);
    let forgotten = sidecar
        .admin()
        .delete("/admin/providers/acme/alpha/estimate")
        .await;
    assert_eq!(forgotten.json()["forgotten"], true);
    let decision = decide(&sidecar.client(), &request("acme", "chat", json!({})), &[])
        .await
        .json()["decision"]
        .clone();
    assert_eq!(
        (&decision["expected_latency_ms"], &decision["expected_cost"]),
        (&json!(500), &json!(0.01))
    );
    assert_eq!(sidecar.metric("router_results_duplicate_total").await, 1.0);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_wrong_result_is_refused_with_its_reason_and_nothing_of_its_list_is_taken() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = with_policies(
        dir.path(),
        &[("acme/chat", json!({"weights": {"alpha": 1.0}}))],
        "",
    );
    let good =
        json!({"tenant_id": "acme", "request_id": "good", "status": "success", "provider_id": "alpha"});
    for (change, reason, code) in [
        (
            json!({"tenant_id": null}),
            "tenant_missing",
            "TENANT_VALIDATION_FAILED",
        ),
        (
            json!({"tenant_id": "a/b"}),
            "tenant_invalid_format",
            "TENANT_VALIDATION_FAILED",
        ),
        (
            json!({"request_id": null}),
            "missing_correlation_id",
            "MISSING_CORRELATION_ID",
        ),
        (json!({"status": null}), "missing_status", "MISSING_STATUS"),
        (json!({"status": "fine"}), "invalid_status", "INVALID_STATUS"),
        (json!({"version": "2"}), "unsupported_version", "PARSE_ERROR"),
        (
            json!({"provider_id": "a b"}),
            "invalid_provider_id",
            "PARSE_ERROR",
        ),
    ] {
        let mut wrong = good.clone();
        wrong
            .as_object_mut()
            .unwrap()
            .extend(change.as_object().unwrap().clone());
        let refused = post(&sidecar, &json!([good, wrong])).await;
        let details = refused.json()["error"]["details"].clone();
        assert_eq!(
            (
                refused.status.as_u16(),
                &details["reason"],
                &details["error_code"]
            ),
            (400, &json!(reason), &json!(code))
        );
        assert_eq!(details["path"], "$[1]");
    }
    assert_eq!(post(&sidecar, &json!("x")).await.status, 400);
    assert_eq!(post(&sidecar, &json!(vec![good.clone(); 101])).await.status, 400);
    assert_eq!(
        post(&sidecar, &good).await.json()["accepted"],
        1,
        "it had not been taken before"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_result_of_a_tenant_that_cannot_have_asked_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({"weights": {"alpha": 1.0}});
    let sidecar = with_policies(
        dir.path(),
        &[("acme/chat", policy.clone()), ("barred/chat", policy)],
        "decide: {allowed_tenants: [acme, nobody]}",
    );
    let result = |tenant: &str| json!({"tenant_id": tenant, "request_id": "r", "status": "timeout", "provider_id": "alpha"});
    for (tenant, reason) in [("nobody", "tenant_unknown"), ("barred", "tenant_not_allowed")] {
        // Asking for its policies makes no tenant known.
        sidecar.client().get(&format!("/api/v1/policies/{tenant}")).await;
        let refused = post(&sidecar, &json!([result("acme"), result(tenant)])).await;
        let details = refused.json()["error"]["details"].clone();
        assert_eq!(
            (refused.status.as_u16(), &details["reason"], &details["path"]),
            (400, &json!(reason), &json!("$[1]"))
        );
        assert_eq!(details["error_code"], "TENANT_VALIDATION_FAILED");
        let page = sidecar
            .admin()
            .get(&format!("/admin/providers?tenant={tenant}"))
            .await;
        assert_eq!(page.json()["providers"], json!([]));
    }
    assert_eq!(post(&sidecar, &result("acme")).await.json()["accepted"], 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn one_tenant_s_flood_takes_nothing_from_the_memory_of_another() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({
        "weights": {"alpha": 1.0}, "sticky": {"enabled": true, "session_key": "s"},
        "circuit_breaker": {"enabled": true, "failure_threshold": 3, "timeout_ms": 300_000},
        "fallbacks": [{"when": {"status": ["circuit_breaker_open"]}, "to": "spare"}],
    });
    let flooding = json!({"weights": {"beta": 1.0}, "sticky": {"enabled": true, "session_key": "s"}});
    let sidecar = with_policies(
        dir.path(),
        &[("acme/chat", policy), ("flood/chat", flooding)],
        "decide: {max_sticky_sessions: 100, max_providers: 1000}",
    );
    let (client, admin) = (sidecar.client(), sidecar.admin());
    let asked = request("acme", "chat", json!({"s": "mine"}));
    assert_eq!(outcome(&decide(&client, &asked, &[]).await), "weighted alpha");
    fail(&sidecar, "alpha", 3).await;
    for n in 0..300 {
        decide(&client, &request("flood", "chat", json!({"s": n})), &[]).await;
    }
    // Five failures each open the built-in breakers of 1 100 invented providers.
    for page in 0..55 {
        let results: Vec<Value> = (0..100)
            .map(|n| json!({"tenant_id": "flood", "request_id": format!("{page}-{n}"), "status": "timeout", "provider_id": format!("made-up-{}", (page * 100 + n) / 5)}))
            .collect();
        assert_eq!(post(&sidecar, &json!(results)).await.json()["accepted"], 100);
    }
    let sessions = admin.get("/admin/sticky?tenant=acme").await.json();
    assert_eq!(sessions["sessions"], 100, "the table is full");
    assert_eq!(sessions["list"].as_array().unwrap().len(), 1);
    let page = admin.get("/admin/providers?tenant=acme").await.json();
    assert_eq!(page["providers"][0]["breaker"]["state"], "open");
    assert_eq!(outcome(&decide(&client, &asked, &[]).await), "fallback spare");
    // The results of a tenant are remembered too, so that they count once.
    let again =
        json!({"tenant_id": "acme", "assignment_id": "alpha-0", "status": "timeout", "provider_id": "alpha"});
    assert_eq!(post(&sidecar, &again).await.json()["duplicates"], 1);
    // There are labels left for providers that are real.
    let fresh = json!({"tenant_id": "acme", "request_id": "r", "status": "timeout", "provider_id": "gamma"});
    post(&sidecar, &fresh).await;
    let gamma = "router_circuit_breaker_events_total{event_type=\"failure\",provider_id=\"gamma\",tenant_id=\"acme\"}";
    assert_eq!(sidecar.metric(gamma).await, 1.0);
    sidecar.stop().await;
}

#[tokio::test]
async fn sessions_and_buckets_can_be_seen_and_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({
        "weights": {"alpha": 1.0}, "sticky": {"enabled": true, "session_key": "email"},
        "rate_limit": {"enabled": true, "requests_per_second": 1, "burst": 2},
    });
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let (client, admin) = (sidecar.client(), sidecar.admin());
    for who in ["ada@example.org", "bob@example.org"] {
        decide(&client, &request("acme", "chat", json!({"email": who})), &[]).await;
    }
    let answer = decide(
        &client,
        &request("acme", "chat", json!({"email": "ada@example.org"})),
        &[],
    )
    .await;
    assert_eq!(outcome(&answer), "429 rate_limit_exceeded");
    let page = admin.get("/admin/sticky?tenant=acme").await.json();
    assert_eq!(
        (&page["sessions"], page["list"].as_array().unwrap().len()),
        (&json!(2), 2)
    );
    let forgotten = admin
        .delete("/admin/sticky?tenant=acme&session=ada%40example.org")
        .await
        .json();
    assert_eq!(forgotten["forgotten"], 1);
    assert_eq!(
        admin.delete("/admin/sticky?tenant=acme").await.json()["forgotten"],
        1
    );
    assert_eq!(admin.delete("/admin/sticky").await.status, 400);
    let page = admin.get("/admin/rate-limits?tenant=acme").await.json();
    assert_eq!(
        (&page["list"][0]["policy_id"], &page["list"][0]["tokens"]),
        (&json!("chat"), &json!(0.0))
    );
    assert_eq!(
        admin
            .delete("/admin/rate-limits?tenant=acme&policy=chat")
            .await
            .status,
        200
    );
    assert_eq!(
        admin
            .delete("/admin/rate-limits?tenant=acme&policy=chat")
            .await
            .status,
        404
    );
    assert_eq!(admin.delete("/admin/rate-limits").await.status, 400);
    let explained = decide(
        &client,
        &request("acme", "chat", json!({"email": "ada@example.org"})),
        &[],
    )
    .await;
    assert_eq!(outcome(&explained), "weighted alpha");
    let again = request(
        "acme",
        "chat",
        json!({"email": "ada@example.org", "detail_level": "detailed"}),
    );
    let steps = decide(&client, &again, &[]).await.json()["decision"]["explanation"]["steps"].clone();
    assert_eq!(
        steps[0],
        "1. Checked sticky session: found existing provider for key email = [REDACTED]"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn the_memory_outlives_a_restart_where_that_is_wanted() {
    let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let policy = json!({"providers": [{"name": "a", "weight": 50}, {"name": "b", "weight": 50}], "sticky": {"enabled": true}});
    let yaml = format!("state_dir: {}\ndecide: {{persist: true}}", state.path().display());
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], &yaml);
    let asked = request("acme", "chat", json!({"session_id": "s"}));
    let first = outcome(&decide(&sidecar.client(), &asked, &[]).await).replace("weighted", "sticky");
    sidecar.stop().await;
    let sidecar = with_policies(dir.path(), &[], &yaml);
    assert_eq!(outcome(&decide(&sidecar.client(), &asked, &[]).await), first);
    sidecar.stop().await;
}
