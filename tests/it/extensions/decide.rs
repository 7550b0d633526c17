//! Extensions in decisions, through HTTP.

use std::{collections::BTreeSet, time::Duration};

use serde_json::{Value, json};

use super::place::Place;
use crate::{
    decide::{decide, outcome, request},
    support::{Answer, Sidecar, eventually},
};

async fn ask(sidecar: &Sidecar, policy: &str, text: &str) -> Answer {
    let mut asked = request("acme", policy, json!({"user_id": "ada"}));
    asked["task"]["payload"] = json!({"text": text});
    decide(&sidecar.client(), &asked, &[("x-beamline-explain", "detailed")]).await
}

pub(super) fn executed(answer: &Answer) -> Vec<String> {
    let body = answer.json();
    let list = &body["decision"]["metadata"]["executed_extensions"];
    let list = if list.is_null() {
        &body["error"]["details"]["executed_extensions"]
    } else {
        list
    };
    let one = |one: &Value| {
        let text = |key: &str| one[key].as_str().unwrap().to_owned();
        format!("{} {} {}", text("type"), text("id"), text("status"))
    };
    list.as_array()
        .unwrap_or_else(|| panic!("{body}"))
        .iter()
        .map(one)
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_guard_refuses_personal_data_and_lets_the_rest_pass() {
    let place = Place::new();
    place.extension("pii-guard", "validator", "pii-guard", json!({}));
    place.policy(
        "chat",
        json!({"validators": [{"id": "pii-guard", "on_fail": "block"}]}),
    );
    let sidecar = place.start("");
    let answer = ask(&sidecar, "chat", "Good morning").await;
    assert!(outcome(&answer).starts_with("weighted "), "{}", answer.text());
    assert_eq!(executed(&answer), ["validator pii-guard ok"]);
    let answer = ask(&sidecar, "chat", "my card is 4111 1111 1111 1111").await;
    assert_eq!(outcome(&answer), "403 validator_blocked");
    let body = answer.json();
    assert!(
        body["error"]["details"]["reason"]
            .as_str()
            .unwrap()
            .contains("card"),
        "{body}"
    );
    assert!(!answer.text().contains("4111"), "{body}");
    assert!(
        sidecar
            .metric(r#"router_extension_execution_total{extension_id="pii-guard",extension_type="validator",policy_id="chat",status="success",tenant_id="acme"}"#)
            .await
            >= 2.0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_takes_part() {
    let place = Place::new();
    place.misbehaving("change", "pre", json!({}));
    place.misbehaving("see", "validator", json!({}));
    place.misbehaving(
        "favour",
        "scorer",
        json!({"config": {"do": "favour", "provider": "beta"}}),
    );
    place.misbehaving("note", "post", json!({}));
    place.policy(
        "chat",
        json!({
            "pre": [{"id": "change", "mode": "required", "config": {"do": "echo", "note": "n"}}],
            "validators": [{"id": "see", "on_fail": "block"}],
            "scorers": [{"id": "favour", "mode": "required"}],
            "post": [{"id": "note", "mode": "required", "config": {"do": "clock"}}],
        }),
    );
    let sidecar = place.start("");
    for _ in 0..20 {
        let answer = ask(&sidecar, "chat", "x").await;
        assert_eq!(outcome(&answer), "weighted beta", "{}", answer.text());
        assert_eq!(
            executed(&answer),
            [
                "pre change ok",
                "validator see ok",
                "scorer favour ok",
                "post note ok"
            ]
        );
        let body = answer.json();
        assert!(
            body["decision"]["metadata"]["now_ms"].as_u64().unwrap() > 1_700_000_000_000,
            "{body}"
        );
        let evidence = &body["decision"]["explanation"]["evidence"];
        assert_eq!(
            evidence["factors"],
            json!({"alpha": 0.0, "beta": 1.0}),
            "{evidence}"
        );
        assert_eq!(evidence["extensions"][2]["id"], "favour");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn scores_of_nothing_leave_no_provider() {
    let place = Place::new();
    place.misbehaving("zero", "scorer", json!({"config": {"do": "zero-scores"}}));
    place.policy("none", json!({"scorers": [{"id": "zero"}]}));
    place.policy(
        "rescued",
        json!({"scorers": [{"id": "zero"}], "fallback": {"provider": "gamma"}}),
    );
    let sidecar = place.start("");
    assert_eq!(outcome(&ask(&sidecar, "none", "x").await), "503 decision_failed");
    assert_eq!(outcome(&ask(&sidecar, "rescued", "x").await), "fallback gamma");
}

#[tokio::test(flavor = "multi_thread")]
async fn each_misdeed_is_answered_as_the_policy_says() {
    let place = Place::new();
    let deeds = [
        ("loop", "extension_timeout"),
        ("loop-in-host", "extension_timeout"),
        ("recurse", "extension_trap"),
        ("allocate", "extension_memory_limit"),
        ("trap", "extension_trap"),
        ("panic", "extension_trap"),
        ("bad-json", "invalid_response_format"),
        ("failure", "extension_failure"),
        ("bad-failure-code", "invalid_response_format"),
    ];
    // One that often runs into its deadline hardly runs where the tests leave no processor idle: each has one call.
    let id_of = |deed: &str, on_fail: &str| match deed.starts_with("loop") {
        true => format!("{deed}-{on_fail}"),
        false => "bad".to_owned(),
    };
    for (deed, _) in deeds {
        for on_fail in ["block", "warn", "ignore"] {
            let id = id_of(deed, on_fail);
            let timeout_ms = if id == "bad" { 5_000 } else { 1_000 };
            place.misbehaving(
                &id,
                "validator",
                json!({"timeout_ms": timeout_ms, "limits": {"memory_bytes": 4_194_304}}),
            );
            let item = json!({"id": id, "on_fail": on_fail, "config": {"do": deed}});
            place.policy(&format!("{deed}-{on_fail}"), json!({"validators": [item]}));
        }
        let good = json!({"id": id_of(deed, "block"), "on_fail": "block", "timeout_ms": 5_000});
        place.policy(&format!("{deed}-good"), json!({"validators": [good]}));
    }
    let sidecar = place.start("extensions: {quarantine_after: 1000}");
    for (deed, error) in deeds {
        let answer = ask(&sidecar, &format!("{deed}-block"), "x").await;
        assert_eq!(outcome(&answer), "403 validator_blocked", "{deed}");
        assert_eq!(
            answer.json()["error"]["details"]["reason"],
            error,
            "{deed}: {}",
            answer.text()
        );
        for (on_fail, status) in [("warn", "warn"), ("ignore", "ignore")] {
            let answer = ask(&sidecar, &format!("{deed}-{on_fail}"), "x").await;
            assert!(
                outcome(&answer).starts_with("weighted "),
                "{deed}: {}",
                answer.text()
            );
            let id = id_of(deed, on_fail);
            assert_eq!(executed(&answer), [format!("validator {id} {status}")], "{deed}");
            let evidence = &answer.json()["decision"]["explanation"]["evidence"];
            assert_eq!(evidence["extensions"][0]["error"], error, "{deed}");
        }
        let answer = ask(&sidecar, &format!("{deed}-good"), "x").await;
        assert!(
            outcome(&answer).starts_with("weighted "),
            "after {deed}: {}",
            answer.text()
        );
        let ids = BTreeSet::from(["block", "warn", "ignore"].map(|on_fail| id_of(deed, on_fail)));
        let mut failures = 0.0;
        for id in ids {
            let counted = format!(
                r#"beamline_sidecar_extension_failures_total{{error="{error}",extension_id="{id}"}}"#
            );
            failures += sidecar.metric(&counted).await;
        }
        assert!(failures >= 3.0, "{deed}: {failures}");
    }
    let page = sidecar.admin().get("/admin/extensions/bad").await.json();
    let traps = page["last_traps"].as_array().unwrap();
    assert_eq!(traps.len(), 10);
    assert!(
        traps
            .iter()
            .all(|trap| trap["tenant_id"] == "acme" && trap["frames"].is_array()),
        "{page}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn bad_answers_of_processors_and_scorers_have_their_names() {
    let place = Place::new();
    for (id, kind) in [("pre", "pre"), ("scorer", "scorer"), ("post", "post")] {
        place.misbehaving(
            id,
            kind,
            json!({"timeout_ms": 5_000, "limits": {"output_bytes": 65_536}}),
        );
    }
    let lists = |kind: &str, deed: &str, mode: &str| {
        let list = if kind == "scorer" { "scorers" } else { kind };
        json!({list: [{"id": kind, "mode": mode, "config": {"do": deed, "bytes": 500_000}}]})
    };
    let cases = [
        (
            "pre",
            "bad-json",
            "invalid_response_format",
            "500 extension_error",
        ),
        (
            "pre",
            "no-object",
            "invalid_response_format",
            "500 extension_error",
        ),
        (
            "pre",
            "huge-output",
            "extension_output_limit",
            "500 extension_error",
        ),
        (
            "post",
            "huge-output",
            "extension_output_limit",
            "500 post_processor_failed",
        ),
        (
            "post",
            "no-object",
            "invalid_response_format",
            "500 post_processor_failed",
        ),
        (
            "scorer",
            "nan-factor",
            "invalid_response_format",
            "500 extension_error",
        ),
        (
            "scorer",
            "negative-factor",
            "invalid_response_format",
            "500 extension_error",
        ),
        (
            "scorer",
            "missing-score",
            "invalid_response_format",
            "500 extension_error",
        ),
        (
            "scorer",
            "unknown-score",
            "invalid_response_format",
            "500 extension_error",
        ),
        (
            "scorer",
            "duplicate-score",
            "invalid_response_format",
            "500 extension_error",
        ),
        ("scorer", "trap", "extension_trap", "500 extension_error"),
    ];
    for (kind, deed, _, _) in cases {
        place.policy(&format!("{kind}-{deed}-r"), lists(kind, deed, "required"));
        place.policy(&format!("{kind}-{deed}-o"), lists(kind, deed, "optional"));
    }
    let sidecar = place.start("extensions: {quarantine_after: 1000}");
    for (kind, deed, error, wire) in cases {
        let answer = ask(&sidecar, &format!("{kind}-{deed}-r"), "x").await;
        assert_eq!(outcome(&answer), wire, "{kind} {deed}: {}", answer.text());
        assert_eq!(
            answer.json()["error"]["details"]["reason"],
            error,
            "{kind} {deed}"
        );
        let answer = ask(&sidecar, &format!("{kind}-{deed}-o"), "x").await;
        assert!(
            outcome(&answer).starts_with("weighted "),
            "{kind} {deed}: {}",
            answer.text()
        );
        assert_eq!(executed(&answer), [format!("{kind} {kind} error")]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_of_a_tenant_is_left_for_the_next() {
    let place = Place::new();
    place.misbehaving("spy", "post", json!({"config": {"do": "remember"}}));
    place.policy("chat", json!({"post": [{"id": "spy", "mode": "required"}]}));
    let sidecar = place.start("");
    for turn in 0..50 {
        let answer = ask(&sidecar, "chat", &format!("secret {turn}")).await;
        assert_eq!(
            answer.json()["decision"]["metadata"]["before"],
            Value::Null,
            "{}",
            answer.text()
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_cannot_speak_for_another_tenant() {
    let place = Place::new();
    for kind in ["pre", "post"] {
        place.misbehaving(kind, kind, json!({"config": {"do": "tenant"}}));
    }
    place.policy("chat", json!({"pre": [{"id": "pre"}], "post": [{"id": "post"}]}));
    let sidecar = place.start("");
    let answer = ask(&sidecar, "chat", "x").await;
    assert_eq!(executed(&answer), ["pre pre ok", "post post ok"]);
    assert_eq!(answer.json()["decision"]["metadata"]["tenant_id"], "acme");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_extension_that_keeps_crashing_rests_until_it_is_released() {
    let place = Place::new();
    place.misbehaving("bad", "validator", json!({}));
    place.policy(
        "chat",
        json!({"validators": [{"id": "bad", "config": {"do": "trap"}}]}),
    );
    place.policy("good", json!({"validators": [{"id": "bad"}]}));
    let sidecar =
        place.start("extensions: {quarantine_after: 3, quarantine_ms: 3600000, max_quarantine_ms: 3600000}");
    let reason = |answer: &Answer| {
        answer.json()["error"]["details"]["reason"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    for _ in 0..3 {
        assert_eq!(reason(&ask(&sidecar, "chat", "x").await), "extension_trap");
    }
    assert_eq!(reason(&ask(&sidecar, "good", "x").await), "extension_quarantined");
    assert!(
        (sidecar
            .metric(r#"beamline_sidecar_extension_blocked{extension_id="bad"}"#)
            .await
            - 1.0)
            .abs()
            < 1e-9
    );
    let breakers = sidecar
        .admin()
        .get("/admin/extensions/circuit-breakers")
        .await
        .json();
    assert_eq!(breakers["bad"]["quarantined"], true, "{breakers}");
    let released = sidecar.admin().post("/admin/extensions/bad/release", "").await;
    assert_eq!(released.status, 200);
    assert!(outcome(&ask(&sidecar, "good", "x").await).starts_with("weighted "));
    let health = sidecar.admin().get("/admin/extensions/health").await.json();
    assert_eq!(
        (&health["bad"]["successes"], &health["bad"]["failures"]),
        (&json!(1), &json!(3))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn one_that_dawdles_moves_to_threads_of_its_own() {
    let place = Place::new();
    place.misbehaving("slow", "validator", json!({"timeout_ms": 1_000}));
    place.policy(
        "slow",
        json!({"validators": [{"id": "slow", "on_fail": "ignore", "config": {"do": "loop"}}]}),
    );
    let sidecar = place.start("");
    for _ in 0..4 {
        assert!(outcome(&ask(&sidecar, "slow", "x").await).starts_with("weighted "));
    }
    let page = sidecar.admin().get("/admin/extensions/slow").await.json();
    assert_eq!(page["lane"], "idle", "{page}");
    for place in ["slow", "idle"] {
        let moves =
            format!(r#"beamline_sidecar_extension_lane_moves_total{{extension_id="slow",to="{place}"}}"#);
        assert!((sidecar.metric(&moves).await - 1.0).abs() < 1e-9, "{place}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_19_callers_that_leave_do_no_harm() {
    let place = Place::new();
    place.misbehaving(
        "slow",
        "validator",
        json!({"timeout_ms": 50, "limits": {"concurrency": 1000}}),
    );
    place.policy(
        "slow",
        json!({"validators": [{"id": "slow", "on_fail": "ignore", "config": {"do": "loop"}}]}),
    );
    place.policy("plain", json!({}));
    let sidecar = place.start("extensions: {max_queued_calls: 1000}");
    let body = request("acme", "slow", json!({})).to_string();
    let head = format!(
        "POST /api/v1/decide HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    for _ in 0..1_000 {
        // Sends a request and is gone.
        let mut socket = tokio::net::TcpStream::connect(sidecar.data).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut socket, format!("{head}{body}").as_bytes())
            .await
            .unwrap();
    }
    let in_flight = || async {
        let page = sidecar.admin().get("/admin/extensions").await.json();
        let number = |value: &Value| value.as_u64().unwrap();
        number(&page["instances"]["running"]) + number(&page["slow_lane"]["waiting"])
    };
    eventually("calls go on whose callers have left", || async {
        in_flight().await > 0
    })
    .await;
    let answer = ask(&sidecar, "plain", "x").await;
    assert!(outcome(&answer).starts_with("weighted "));
    eventually("nothing runs or waits any more", || async {
        let page = sidecar.admin().get("/admin/extensions").await.json();
        page["instances"]["running"] == 0 && page["slow_lane"]["waiting"] == 0
    })
    .await;
    let health = sidecar.admin().get("/admin/extensions/health").await.json();
    assert_eq!(health["slow"]["running"], 0, "{health}");
    assert!(outcome(&ask(&sidecar, "slow", "x").await).starts_with("weighted "));
}

#[tokio::test(flavor = "multi_thread")]
async fn too_many_at_once_are_refused_at_once() {
    let place = Place::new();
    place.misbehaving(
        "slow",
        "validator",
        json!({"timeout_ms": 300, "limits": {"concurrency": 1}}),
    );
    place.policy(
        "slow",
        json!({"validators": [{"id": "slow", "config": {"do": "loop"}}]}),
    );
    let sidecar = place.start("runtime: {workers: 4}\nextensions: {worker_threads: 4}");
    // The first two find out that it belongs into the slow lane.
    for _ in 0..2 {
        ask(&sidecar, "slow", "x").await;
    }
    let seen = std::cell::RefCell::new(BTreeSet::new());
    eventually("one of several runs and the others are refused", || async {
        let asked: Vec<_> = (0..4).map(|_| ask(&sidecar, "slow", "x")).collect();
        let answers = join(asked).await;
        let reasons = answers
            .iter()
            .map(|answer| answer.json()["error"]["details"]["reason"].to_string());
        let reasons: BTreeSet<_> = reasons.collect();
        let both = reasons.len() == 2;
        seen.borrow_mut().extend(reasons);
        both
    })
    .await;
    let seen: Vec<_> = seen.into_inner().into_iter().collect();
    assert_eq!(seen, ["\"extension_timeout\"", "\"extension_unavailable\""]);
}

/// Polls all of them together.
pub(super) async fn join<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut futures: Vec<_> = futures
        .into_iter()
        .map(|future| (Box::pin(future), None))
        .collect();
    std::future::poll_fn(|context| {
        let mut pending = false;
        for (future, output) in &mut futures {
            if output.is_none() {
                match future.as_mut().poll(context) {
                    std::task::Poll::Ready(ready) => *output = Some(ready),
                    std::task::Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            std::task::Poll::Pending
        } else {
            std::task::Poll::Ready(())
        }
    })
    .await;
    futures.into_iter().filter_map(|(_, output)| output).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_retry_is_made_after_a_timeout_alone() {
    let place = Place::new();
    place.misbehaving("slow", "validator", json!({"timeout_ms": 1_000, "retry": 1}));
    place.policy(
        "loop",
        json!({"validators": [{"id": "slow", "config": {"do": "loop"}}]}),
    );
    place.misbehaving("traps", "validator", json!({"retry": 1}));
    place.policy(
        "trap",
        json!({"validators": [{"id": "traps", "config": {"do": "trap"}}]}),
    );
    let sidecar = place.start("");
    let began = std::time::Instant::now();
    let answer = ask(&sidecar, "loop", "x").await;
    assert!(
        began.elapsed() >= Duration::from_millis(2 * 1_000 + 100),
        "it waits before it tries again"
    );
    let details = &answer.json()["error"]["details"];
    assert_eq!(
        (&details["reason"], &details["details"]["retries"]),
        (&json!("extension_timeout"), &json!(2)),
        "{details}"
    );
    assert_eq!(
        ask(&sidecar, "trap", "x").await.json()["error"]["details"]["reason"],
        "extension_trap"
    );
    // The decision does not wait for the end of a call whose time is over, and that counts it.
    let health = async || sidecar.admin().get("/admin/extensions/health").await.json();
    eventually("both calls are over", || async {
        health().await["slow"]["running"] == 0
    })
    .await;
    let health = health().await;
    assert_eq!(health["slow"]["failures"], 2, "{health}");
    assert_eq!(health["traps"]["failures"], 1, "{health}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_repeats_with_its_seed() {
    let place = Place::new();
    place.misbehaving("chance", "post", json!({"config": {"do": "random"}}));
    place.policy("chat", json!({"post": [{"id": "chance"}]}));
    let sidecar = place.start("");
    let asked = request("acme", "chat", json!({}));
    let mut seen = Vec::new();
    for seed in ["1", "1", "2"] {
        let answer = decide(&sidecar.client(), &asked, &[("x-beamline-seed", seed)]).await;
        seen.push(answer.json()["decision"]["metadata"]["random"].clone());
    }
    assert!(seen[0].is_array());
    assert_eq!(seen[0], seen[1]);
    assert_ne!(seen[1], seen[2]);
}
