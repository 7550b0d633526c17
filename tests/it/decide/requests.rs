//! Decisions over HTTP.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::path::Path;

use beamline_sidecar::store::Level;
use serde_json::{Value, json};

use crate::support::{Answer, Client, Heir, Sidecar, eventually};

/// A sidecar on a directory of policies, each `("tenant/policy", document)`, with more YAML.
pub(crate) fn with_policies(dir: &Path, policies: &[(&str, Value)], yaml: &str) -> Sidecar {
    for (name, document) in policies {
        let file = dir.join(format!("{name}.json"));
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(file, document.to_string()).unwrap();
    }
    Sidecar::try_start(&format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\nshutdown: {{lame_duck_ms: 10}}\n\
         heir_policy_store_enabled: false\npolicies_dir: {}\n{yaml}",
        dir.display()
    ))
    .unwrap()
}

/// A request in the newer form.
pub(crate) fn request(tenant: &str, policy: &str, metadata: Value) -> Value {
    json!({
        "version": "1", "request_id": "r-1", "tenant_id": tenant, "policy_id": policy,
        "task": {"type": "chat", "payload": {"text": "Good morning"}}, "metadata": metadata,
    })
}

pub(crate) async fn decide(client: &Client, request: &Value, headers: &[(&str, &str)]) -> Answer {
    client
        .send(http::Method::POST, "/api/v1/decide", headers, request.to_string())
        .await
        .unwrap()
}

/// `reason provider` of a decision, or `status code`.
pub(crate) fn outcome(answer: &Answer) -> String {
    let body = answer.json();
    match body["ok"].as_bool() {
        Some(true) => {
            let text = |key: &str| body["decision"][key].as_str().unwrap().to_owned();
            format!("{} {}", text("reason"), text("provider_id"))
        }
        _ => format!("{} {}", answer.status.as_u16(), answer.code()),
    }
}

fn two() -> Value {
    json!({"version": "2.1", "providers": [{"name": "alpha", "weight": 60}, {"name": "beta", "weight": 40}]})
}

#[tokio::test]
async fn a_decision_says_where_to_go_and_on_request_why() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = two();
    policy["timeout_ms"] = 9000.into();
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "decide: {allow_seed: true}");
    let client = sidecar.client();
    let asked = request(
        "acme",
        "chat",
        json!({"user_id": "ada", "expected_latency_ms": 70, "expected_cost": 0.5}),
    );
    let answer = decide(&client, &asked, &[("x-beamline-seed", "2a")]).await;
    assert_eq!(answer.status, 200);
    assert_eq!(
        answer.json(),
        json!({
            "ok": true,
            "decision": {
                "provider_id": "alpha", "priority": 50, "reason": "weighted",
                "expected_latency_ms": 70, "expected_cost": 0.5,
                "metadata": {
                    "tenant_id": "acme", "message_type": "chat", "user_id": "ada", "expected_latency_ms": 70,
                    "expected_cost": 0.5, "timeout_ms": 9000,
                },
            },
            "context": {"request_id": "r-1"},
        })
    );
    assert_eq!(
        (
            answer.header("x-beamline-seed"),
            answer.header("x-beamline-source")
        ),
        ("000000000000002a", "file")
    );
    assert_eq!(answer.header("x-beamline-decision-id").len(), 32);

    let explained = decide(
        &client,
        &asked,
        &[("x-beamline-seed", "2a"), ("x-beamline-explain", "verbose")],
    )
    .await;
    let explanation = &explained.json()["decision"]["explanation"];
    assert_eq!(
        explanation["decision_id"],
        explained.header("x-beamline-decision-id")
    );
    assert_eq!(
        explanation["steps"],
        json!([
            "2. Applied weighted distribution: 2 providers, total weight: 1.00 (alpha: 0.60, beta: 0.40)"
        ])
    );
    assert_eq!(
        (&explanation["policy_version"], &explanation["evidence"]["seed"]),
        (&json!("2.1"), &json!("000000000000002a"))
    );
    let by_context = request("acme", "chat", json!({"detail_level": "bogus"}));
    let explanation = &decide(&client, &by_context, &[]).await.json()["decision"]["explanation"];
    assert_eq!(explanation["warnings"].as_array().unwrap().len(), 1);
    assert!(
        explanation["evidence"].is_object(),
        "an unknown level is the detailed one"
    );
    for (header, code) in [
        (("x-beamline-seed", "zz"), 400),
        (("x-beamline-explain", "loud"), 400),
    ] {
        assert_eq!(decide(&client, &asked, &[header]).await.status, code);
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_seed_is_only_taken_where_it_is_allowed() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = with_policies(dir.path(), &[("acme/chat", two())], "");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..64 {
        let answer = decide(
            &sidecar.client(),
            &request("acme", "chat", json!({})),
            &[("x-beamline-seed", "2a")],
        )
        .await;
        assert_ne!(answer.header("x-beamline-seed"), "000000000000002a");
        seen.insert(outcome(&answer));
    }
    assert_eq!(
        seen.len(),
        2,
        "whoever could choose the seed could choose the provider"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_session_keeps_its_provider_and_a_failure_asks_the_rules() {
    let dir = tempfile::tempdir().unwrap();
    let mut policy = two();
    policy["sticky"] = json!({"enabled": true, "session_key": "user_id", "ttl": "10m"});
    policy["fallbacks"] = json!([{"when": {"status": ["5xx"]}, "retry": 1, "backoff": {"strategy": "fixed", "base_ms": 150, "jitter": false}, "to": "gamma"}]);
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let client = sidecar.client();
    let ada = request("acme", "chat", json!({"user_id": "ada"}));
    let first = outcome(&decide(&client, &ada, &[]).await);
    let provider = first.strip_prefix("weighted ").unwrap();
    for _ in 0..8 {
        assert_eq!(
            outcome(&decide(&client, &ada, &[]).await),
            format!("sticky {provider}")
        );
    }
    let failed = request(
        "acme",
        "chat",
        json!({"current_provider": "alpha", "status": 503}),
    );
    let retry = decide(&client, &failed, &[]).await;
    assert_eq!(outcome(&retry), "retry alpha");
    let metadata = retry.json()["decision"]["metadata"].clone();
    assert_eq!(
        (
            &metadata["backoff_ms"],
            &metadata["retry_attempt"],
            &metadata["rule_index"]
        ),
        (&json!(150), &json!(1), &json!(0))
    );
    let rule = metadata["fallback_rule_id"].as_str().unwrap();
    let spent = request(
        "acme",
        "chat",
        json!({"current_provider": "alpha", "status": 503, (format!("retry_attempts_{rule}")): 1}),
    );
    assert_eq!(outcome(&decide(&client, &spent, &[]).await), "fallback gamma");
    assert_eq!(
        sidecar
            .metric("router_sticky_hits_total{tenant_id=\"acme\"}")
            .await,
        8.0
    );
    assert_eq!(
        sidecar
            .metric("router_sticky_miss_total{tenant_id=\"acme\"}")
            .await,
        1.0
    );
    assert_eq!(
        sidecar
            .metric("router_fallback_activation_total{tenant_id=\"acme\"}")
            .await,
        1.0
    );
    assert_eq!(
        sidecar
            .metric("router_policy_decisions_total{reason=\"retry\",tenant_id=\"acme\"}")
            .await,
        1.0
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn every_refusal_has_its_code_and_status() {
    let dir = tempfile::tempdir().unwrap();
    let zero = json!({"providers": [{"name": "a", "weight": 0}]});
    let required =
        json!({"providers": [{"name": "a", "weight": 100}], "pre": [{"id": "gone", "mode": "required"}]});
    let blocked = json!({"providers": [{"name": "a", "weight": 100}], "validators": [{"id": "gone"}]});
    let post =
        json!({"providers": [{"name": "a", "weight": 100}], "post": [{"id": "gone", "mode": "required"}]});
    let deep = json!({"providers": [{"name": "a", "weight": 100}], "pre": [{"id": "1"}, {"id": "2"}, {"id": "3"}, {"id": "4"}, {"id": "5"}, {"id": "6"}]});
    let limited = json!({"providers": [{"name": "a", "weight": 100}], "rate_limit": {"enabled": true, "requests_per_second": 1, "burst": 1}});
    let policies = [
        ("acme/zero", zero),
        ("acme/required", required),
        ("acme/blocked", blocked),
        ("acme/post", post),
        ("acme/deep", deep),
        ("acme/limited", limited),
        ("globex/default", two()),
    ];
    let sidecar = with_policies(dir.path(), &policies, "decide: {allowed_tenants: [acme, nobody]}");
    let client = sidecar.client();
    for (tenant, policy, metadata, expected, error_type) in [
        ("globex", "default", json!({}), "403 unauthorized", "acl_denied"),
        ("nobody", "x", json!({}), "404 policy_not_found", ""),
        (
            "acme",
            "zero",
            json!({}),
            "503 decision_failed",
            "no_provider_available",
        ),
        (
            "acme",
            "required",
            json!({}),
            "500 extension_error",
            "pre_processor_failed",
        ),
        (
            "acme",
            "blocked",
            json!({}),
            "403 validator_blocked",
            "validator_blocked",
        ),
        (
            "acme",
            "post",
            json!({}),
            "500 post_processor_failed",
            "post_processor_failed",
        ),
        (
            "acme",
            "deep",
            json!({}),
            "400 invalid_request",
            "too_many_pre_processors",
        ),
        (
            "acme",
            "zero",
            json!({"deadline": 1}),
            "504 internal",
            "deadline_exceeded",
        ),
        (
            "acme",
            "zero",
            json!({"deadline": "1"}),
            "503 decision_failed",
            "no_provider_available",
        ),
    ] {
        let answer = decide(&client, &request(tenant, policy, metadata), &[]).await;
        assert_eq!(outcome(&answer), expected, "{tenant}/{policy}");
        let body = answer.json();
        assert_eq!(
            body["error"]["details"]["error_type"]
                .as_str()
                .unwrap_or_default(),
            error_type
        );
        assert_eq!(body["context"], json!({"request_id": "r-1"}));
    }
    let limited = request("acme", "limited", json!({}));
    let passed = decide(&client, &limited, &[]).await;
    assert_eq!(
        (outcome(&passed).as_str(), passed.header("x-ratelimit-remaining")),
        ("weighted a", "0")
    );
    let refused = decide(&client, &limited, &[]).await;
    assert_eq!(outcome(&refused), "429 rate_limit_exceeded");
    assert_eq!(
        refused.json()["error"],
        json!({
            "code": "rate_limit_exceeded", "message": "Rate limit exceeded for policy limited",
            "details": {
                "scope": "policy", "tenant_id": "acme", "policy_id": "limited", "limit": 1, "burst": 1,
                "window_seconds": 1, "retry_after_seconds": 1, "error_type": "rate_limit_exceeded",
            },
        })
    );
    assert_eq!(
        (
            refused.header("retry-after"),
            refused.header("x-ratelimit-limit"),
            refused.header("x-ratelimit-remaining")
        ),
        ("1", "1", "0")
    );
    assert!(refused.header("x-ratelimit-reset").parse::<u64>().unwrap() > 1_700_000_000);
    let unsupported = json!({"version": "7", "request_id": "r-9"});
    let refused = decide(&client, &unsupported, &[]).await;
    assert_eq!(refused.status, 400);
    assert_eq!(
        refused.json()["error"]["intake_error_code"],
        "VERSION_UNSUPPORTED"
    );
    assert_eq!(
        refused.json()["error"]["details"]["supported_versions"],
        json!(["1"])
    );
    assert_eq!(refused.json()["context"], json!({"request_id": "r-9"}));
    let huge = format!("{{\"version\":\"1\",\"x\":\"{}\"}}", "x".repeat(1 << 20));
    assert_eq!(client.post("/api/v1/decide", huge).await.status, 413);
    assert_eq!(client.get("/api/v1/decide").await.status, 405);
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_policy_that_only_heir_knows_is_fetched_and_one_that_it_does_not_is_not_found() {
    let heir = Heir::start(Level::Single).await;
    heir.client().put_policy("acme/chat", two().to_string()).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    let answer = decide(
        &client,
        &request("acme", "chat", json!({})),
        &[("x-beamline-explain", "verbose")],
    )
    .await;
    assert!(outcome(&answer).starts_with("weighted "), "{}", answer.text());
    assert_eq!(
        answer.json()["decision"]["explanation"]["context"]["policy_cache_hit"],
        false
    );
    let again = decide(
        &client,
        &request("acme", "chat", json!({})),
        &[("x-beamline-explain", "verbose")],
    )
    .await;
    assert_eq!(
        again.json()["decision"]["explanation"]["context"]["policy_cache_hit"],
        true
    );
    assert_eq!(
        outcome(&decide(&client, &request("acme", "none", json!({})), &[]).await),
        "404 policy_not_found"
    );
    assert_eq!(
        client.get("/api/v1/policies/acme/chat/complexity").await.json()["complexity_level"],
        "low"
    );
    assert_eq!(
        client.get("/api/v1/policies/acme/none/complexity").await.status,
        404
    );
    sidecar.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_version_of_a_policy_decides_at_once_and_its_sessions_go_on() {
    let heir = Heir::start(Level::Changes).await;
    let sticky = json!({"enabled": true, "session_key": "user_id"});
    heir.client()
        .put_policy(
            "acme/chat",
            json!({"weights": {"a": 1.0}, "sticky": sticky}).to_string(),
        )
        .await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    let ada = request("acme", "chat", json!({"user_id": "ada"}));
    eventually("the policy is here", || async {
        decide(&client, &ada, &[]).await.status == 200
    })
    .await;
    client
        .put_policy(
            "acme/chat",
            json!({"weights": {"b": 1.0}, "sticky": sticky}).to_string(),
        )
        .await;
    assert_eq!(
        outcome(&decide(&client, &request("acme", "chat", json!({})), &[]).await),
        "weighted b"
    );
    assert_eq!(outcome(&decide(&client, &ada, &[]).await), "sticky a");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_dry_run_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({
        "providers": [{"name": "a", "weight": 100}], "pre": [{"id": "gone", "mode": "required"}],
        "sticky": {"enabled": true, "session_key": "user_id"},
        "rate_limit": {"enabled": true, "requests_per_second": 1, "burst": 1},
    });
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let client = sidecar.client();
    let dry =
        json!({"tenant_id": "acme", "policy_id": "chat", "payload": {"x": 1}, "context": {"user_id": "ada"}});
    for _ in 0..3 {
        let answer = client.post("/api/v1/policies/dry-run", dry.to_string()).await;
        let result = answer.json()["result"].clone();
        assert_eq!(
            result["decision"],
            json!({"provider_id": "a", "reason": "weighted", "priority": 50})
        );
        assert_eq!(
            result["executed_extensions"],
            json!([{"type": "pre", "id": "gone", "status": "ok"}])
        );
        assert_eq!(
            (&result["final_payload"], &result["explanation"]["reason"]),
            (&json!({"x": 1}), &json!("weighted"))
        );
    }
    assert_eq!(sidecar.admin().get("/admin/sticky").await.json()["sessions"], 0);
    assert_eq!(
        sidecar.admin().get("/admin/rate-limits").await.json()["buckets"],
        0
    );
    let sent = json!({"tenant_id": "acme", "policy_id": "new", "policy": {"weights": {"z": 1.0}}});
    let answer = client.post("/api/v1/policies/dry-run", sent.to_string()).await;
    assert_eq!(answer.json()["result"]["decision"]["provider_id"], "z");
    let broken =
        json!({"tenant_id": "acme", "policy_id": "new", "policy": {"weights": {"z": 7.5}, "fallback": 1}});
    let refused = client.post("/api/v1/policies/dry-run", broken.to_string()).await;
    assert_eq!(
        (refused.status.as_u16(), refused.code().as_str()),
        (422, "invalid_policy")
    );
    let refused = client.post("/api/v1/policies/dry-run", "{}").await;
    assert_eq!(
        refused.json()["error"]["message"],
        "Missing required fields: tenant_id, policy_id, payload"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_dry_run_explains_at_the_level_that_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({"weights": {"a": 1.0}, "explanation": {"detail_level": "detailed"}});
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let client = sidecar.client();
    let explained = async |context: Value, headers: &[(&str, &str)]| {
        let dry = json!({"tenant_id": "acme", "policy_id": "chat", "context": context});
        let answer = client
            .send(
                http::Method::POST,
                "/api/v1/policies/dry-run",
                headers,
                dry.to_string(),
            )
            .await
            .unwrap();
        answer.json()["result"]["explanation"].clone()
    };
    let level = |explanation: &Value| {
        let step = explanation["steps"][0].as_str().unwrap().to_owned();
        match explanation["evidence"].is_null() {
            true => "minimal",
            false if step.contains("(a: ") => "verbose",
            false => "detailed",
        }
    };
    for asked in ["minimal", "detailed", "verbose"] {
        let by_context = explained(json!({"detail_level": asked}), &[]).await;
        assert_eq!(level(&by_context), asked);
        let by_header = explained(json!({}), &[("x-beamline-explain", asked)]).await;
        assert_eq!(level(&by_header), asked);
    }
    let unknown = explained(json!({"detail_level": "loud"}), &[]).await;
    assert_eq!(
        (level(&unknown), unknown["warnings"].as_array().unwrap().len()),
        ("detailed", 1)
    );
    assert_eq!(
        level(&explained(json!({}), &[("x-beamline-explain", "true")]).await),
        "detailed"
    );
    assert_eq!(
        level(&explained(json!({}), &[]).await),
        "verbose",
        "nobody asked for less"
    );
    sidecar.stop().await;
}

/// A request whose metadata is this text.
fn with_metadata(metadata: &str) -> String {
    let mut asked = request("acme", "chat", json!({}));
    asked["metadata"] = json!("METADATA");
    asked.to_string().replace("\"METADATA\"", metadata)
}

#[tokio::test]
async fn integers_beyond_64_bits_are_told_apart_compared_and_sent_back_exactly() {
    let dir = tempfile::tempdir().unwrap();
    let policy = r#"{
        "weights": {"a": 0.5, "b": 0.5}, "sticky": {"enabled": true, "session_key": "s"},
        "fallbacks": [
            {"when": {"n": 18446744073709551617}, "retry": 0, "to": "equal"},
            {"when": {"in": [{"var": "n"}, [36893488147419103233, 36893488147419103235]]}, "retry": 0, "to": "listed"},
            {"when": {">": [{"var": "n"}, 18446744073709551618]}, "retry": 1, "to": "greater"},
            {"when": {"<": [{"var": "n"}, -9223372036854775809]}, "retry": 0, "to": "less"}
        ]
    }"#;
    std::fs::create_dir_all(dir.path().join("acme")).unwrap();
    std::fs::write(dir.path().join("acme/chat.json"), policy).unwrap();
    let sidecar = with_policies(dir.path(), &[], "");
    let (client, admin) = (sidecar.client(), sidecar.admin());
    let ask = async |metadata: &str| client.post("/api/v1/decide", with_metadata(metadata)).await;

    // 32 sessions that are one as floats: as many pins, which cannot all be of one provider.
    let mut chosen = std::collections::BTreeSet::new();
    for last in 10..42 {
        let metadata = format!(r#"{{"s":184467440737095517{last}}}"#);
        let first = outcome(&ask(&metadata).await);
        chosen.insert(first.clone());
        assert_eq!(
            outcome(&ask(&metadata).await),
            first.replace("weighted", "sticky")
        );
    }
    assert_eq!(chosen.len(), 2);
    let page = admin.get("/admin/sticky?tenant=acme").await.json();
    assert_eq!(page["list"].as_array().unwrap().len(), 32);
    assert!(
        page["list"]
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["value"] == "18446744073709551711")
    );

    for (n, wanted) in [
        ("18446744073709551617", "fallback equal"),
        ("36893488147419103233", "fallback listed"),
        ("36893488147419103234", "fallback greater"),
        ("18446744073709551619", "fallback greater"),
        ("1e300", "fallback greater"),
        ("-9223372036854775810", "fallback less"),
    ] {
        // A counter that is larger than any budget has used it up.
        let metadata = format!(
            r#"{{"current_provider":"a","status":"down","n":{n},"retry_attempts":99999999999999999999,"deep":[{{"n":{n}}}],"detail_level":"verbose"}}"#
        );
        let answer = ask(&metadata).await;
        assert_eq!(outcome(&answer), wanted, "{n}");
        let digits = n.replace("1e300", "1e+300");
        for shown in ["metadata", "context"] {
            let at = answer.text().find(&format!("\"{shown}\":{{")).unwrap();
            let rest = &answer.text()[at..];
            assert!(
                rest.contains(&format!("\"deep\":[{{\"n\":{digits}}}]")),
                "{shown}: {rest}"
            );
            assert!(rest.contains("\"retry_attempts\":99999999999999999999"), "{rest}");
        }
    }
    for n in [
        "18446744073709551618",
        "18446744073709551616",
        "-9223372036854775809",
        "1",
    ] {
        let metadata = format!(r#"{{"current_provider":"a","status":"down","n":{n}}}"#);
        assert!(outcome(&ask(&metadata).await).starts_with("weighted "), "{n}");
    }

    // The explanation, the page of the policy, and a dry run write what was written.
    let steps = ask(r#"{"s":18446744073709551711,"detail_level":"verbose"}"#).await;
    assert!(
        steps.text().contains("for key s = 18446744073709551711 (TTL"),
        "{}",
        steps.text()
    );
    let page = admin.get("/admin/policies/acme/chat").await;
    assert!(page.text().contains("18446744073709551618]"), "{}", page.text());
    let dry = format!(
        r#"{{"tenant_id":"acme","policy_id":"chat","payload":{{"n":18446744073709551617}},"context":{{"n":18446744073709551617,"current_provider":"a","status":"x"}},"policy":{policy}}}"#
    );
    let run = client.post("/api/v1/policies/dry-run", dry).await;
    assert_eq!(
        run.json()["result"]["decision"]["provider_id"],
        "equal",
        "{}",
        run.text()
    );
    assert!(
        run.text()
            .contains("\"final_payload\":{\"n\":18446744073709551617}"),
        "{}",
        run.text()
    );
    sidecar.stop().await;
}
