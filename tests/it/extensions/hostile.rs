//! Hostile guests, through HTTP: what each gets, and that no other request is affected.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use serde_json::{Value, json};

use super::{
    decide::{executed, join},
    place::Place,
};
use crate::{
    decide::{decide, outcome, request},
    support::{Answer, Client, Sidecar, eventually},
};

pub(super) async fn ask(client: &Client, policy: &str) -> Answer {
    decide(
        client,
        &request("acme", policy, json!({})),
        &[("x-beamline-explain", "detailed")],
    )
    .await
}

/// Why an extension kept a message from passing; empty if none did.
pub(super) fn reason(answer: &Answer) -> String {
    let body = answer.json();
    body["error"]["details"]["reason"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// What is said against an extension.
pub(super) async fn problems(sidecar: &Sidecar, id: &str) -> String {
    let page = sidecar.admin().get("/admin/extensions").await.json();
    page["problems"][id].to_string()
}

/// A validator, and a policy that names it, both of this name.
fn guarded(place: &Place, id: &str, guest_name: &str, more: Value) {
    place.extension(id, "validator", guest_name, more);
    place.policy(id, json!({"validators": [{"id": id, "on_fail": "block"}]}));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_20_an_asynchronous_component_is_refused() {
    let place = Place::new();
    guarded(&place, "async", "asynchronous", json!({}));
    guarded(&place, "good", "pii-guard", json!({}));
    let sidecar = place.start("");
    let client = sidecar.client();
    assert!(
        problems(&sidecar, "async").await.contains("async"),
        "{}",
        problems(&sidecar, "async").await
    );
    assert_eq!(reason(&ask(&client, "async").await), "extension_not_found");
    assert!(outcome(&ask(&client, "good").await).starts_with("weighted "));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_21_what_never_ends_before_its_first_call_is_refused_or_ended() {
    let place = Place::new();
    guarded(&place, "start", "loops-at-start", json!({}));
    // What it does when a text is handed to it, and so when it is asked about its configuration.
    guarded(
        &place,
        "realloc",
        "loops-in-realloc",
        json!({"timeout_ms": 1_000}),
    );
    guarded(&place, "good", "pii-guard", json!({}));
    let sidecar = place.start("");
    let client = sidecar.client();
    for (id, says) in [
        ("start", "does not start"),
        ("realloc", "the check took longer than 100 ms"),
    ] {
        eventually("its problem is told", || async {
            problems(&sidecar, id).await.contains(says)
        })
        .await;
        assert_eq!(reason(&ask(&client, id).await), "extension_not_found", "{id}");
    }
    assert!(outcome(&ask(&client, "good").await).starts_with("weighted "));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_21_tables_are_as_large_as_they_may_be() {
    let place = Place::new();
    guarded(&place, "large", "large-table", json!({}));
    guarded(
        &place,
        "grows",
        "grows-table",
        json!({"limits": {"table_elements": 20_000}}),
    );
    guarded(
        &place,
        "absurd",
        "grows-table",
        json!({"limits": {"table_elements": 1_000_000}}),
    );
    let sidecar = place.start("");
    let said = problems(&sidecar, "large").await;
    assert!(said.contains("table"), "{said}");
    let said = problems(&sidecar, "absurd").await;
    assert!(said.contains("from 1 to 20000"), "{said}");
    // It is not granted, and the call reports so; the rest is the guest's own failure.
    let answer = ask(&sidecar.client(), "grows").await;
    assert_eq!(reason(&answer), "extension_failure", "{}", answer.text());
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_21_nobody_else_notices() {
    let place = Place::new();
    let deeds = [
        "loop",
        "loop-in-host",
        "recurse",
        "allocate",
        "trap",
        "panic",
        "huge-output",
        "many-items",
        "flood-log",
    ];
    for deed in deeds {
        let bytes = match deed {
            "huge-output" => 100_000_000,
            // A legal answer, but for the number of its values.
            "many-items" => 300_000,
            _ => 0,
        };
        let config = json!({"do": deed, "bytes": bytes});
        place.misbehaving(deed, "validator", json!({"timeout_ms": 30, "config": config}));
        place.policy(deed, json!({"validators": [{"id": deed, "on_fail": "ignore"}]}));
    }
    // Far longer than it takes: how soon is for the benchmark.
    guarded(&place, "good", "pii-guard", json!({"timeout_ms": 5_000}));
    place.policy("plain", json!({}));
    let sidecar = place.start("extensions: {quarantine_after: 1000}");
    let stop = Arc::new(AtomicBool::new(false));
    let bad: Vec<_> = deeds
        .into_iter()
        .map(|deed| {
            let (client, stop) = (sidecar.client(), stop.clone());
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    let answer = ask(&client, deed).await;
                    assert!(
                        outcome(&answer).starts_with("weighted "),
                        "{deed}: {}",
                        answer.text()
                    );
                }
            })
        })
        .collect();
    let client = sidecar.client();
    for _ in 0..200 {
        for policy in ["good", "plain"] {
            let answer = ask(&client, policy).await;
            assert!(
                outcome(&answer).starts_with("weighted "),
                "{policy}: {}",
                answer.text()
            );
        }
        assert_eq!(client.policy("acme/plain").await.status, 200);
    }
    stop.store(true, SeqCst);
    for bad in bad {
        bad.await.unwrap();
    }
    eventually("nothing is left of them", || async {
        let page = sidecar.admin().get("/admin/extensions").await.json();
        page["instances"]["running"] == 0 && page["slow_lane"]["waiting"] == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_23_more_calls_than_instances_are_refused_and_the_rest_goes_on() {
    let place = Place::new();
    place.misbehaving(
        "slow",
        "validator",
        json!({"timeout_ms": 1_000, "config": {"do": "loop"}}),
    );
    place.policy("slow", json!({"validators": [{"id": "slow"}]}));
    guarded(&place, "good", "pii-guard", json!({}));
    let sidecar = place.start("runtime: {workers: 2}\nextensions: {max_instances: 4, worker_threads: 12}");
    let client = sidecar.client();
    // It finds its lane.
    for _ in 0..2 {
        assert_eq!(reason(&ask(&client, "slow").await), "extension_timeout");
    }
    eventually("there were more calls than instances", || async {
        let answers = join((0..12).map(|_| ask(&client, "slow")).collect()).await;
        let reasons: Vec<String> = answers.iter().map(reason).collect();
        let known = |reason: &String| ["extension_timeout", "extension_unavailable"].contains(&&**reason);
        assert!(reasons.iter().all(known), "{reasons:?}");
        let count = |of: &str| reasons.iter().filter(|reason| *reason == of).count();
        count("extension_timeout") > 0 && count("extension_unavailable") >= 12 - 4
    })
    .await;
    // It counts as no crash, and there is room again.
    eventually("nothing runs or waits any more", || async {
        let page = sidecar.admin().get("/admin/extensions").await.json();
        page["instances"]["running"] == 0 && page["slow_lane"]["waiting"] == 0
    })
    .await;
    let health = sidecar.admin().get("/admin/extensions/health").await.json();
    assert_eq!(health["slow"]["quarantined_until"], Value::Null, "{health}");
    assert!(outcome(&ask(&client, "good").await).starts_with("weighted "));
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_24_what_is_no_answer_has_its_name() {
    let place = Place::new();
    guarded(&place, "no-text", "no-text", json!({}));
    guarded(&place, "wild", "wild-answer", json!({}));
    place.misbehaving(
        "huge",
        "validator",
        json!({"timeout_ms": 5_000, "config": {"do": "huge-output", "bytes": 100_000_000}, "limits": {"memory_bytes": 16_777_216}}),
    );
    place.misbehaving(
        "large",
        "validator",
        json!({"timeout_ms": 5_000, "config": {"do": "huge-output", "bytes": 8_000_000}, "limits": {"memory_bytes": 33_554_432}}),
    );
    for id in ["huge", "large"] {
        place.policy(id, json!({"validators": [{"id": id, "on_fail": "block"}]}));
    }
    let sidecar = place.start("extensions: {quarantine_after: 1000}");
    let client = sidecar.client();
    for (id, error) in [
        ("no-text", "extension_output_limit"),
        ("wild", "extension_output_limit"),
        ("huge", "extension_memory_limit"),
        ("large", "extension_output_limit"),
    ] {
        let answer = ask(&client, id).await;
        assert_eq!(reason(&answer), error, "{id}: {}", answer.text());
        assert_eq!(outcome(&answer), "403 validator_blocked");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_24_a_flood_of_lines_is_cut_to_a_few_a_second() {
    let place = Place::new();
    place.misbehaving(
        "loud",
        "validator",
        json!({"config": {"do": "flood-log"}, "limits": {"output_bytes": 2_097_152}, "timeout_ms": 5000}),
    );
    place.policy("loud", json!({"validators": [{"id": "loud"}]}));
    let sidecar = place.start("");
    let client = sidecar.client();
    let second = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
    let began = second();
    for _ in 0..20 {
        let answer = ask(&client, "loud").await;
        assert!(outcome(&answer).starts_with("weighted "), "{}", answer.text());
    }
    let seconds = second() - began + 1;
    let lines = |outcome: &str| {
        let series = format!(
            r#"beamline_sidecar_extension_log_lines_total{{extension_id="loud",outcome="{outcome}"}}"#
        );
        let sidecar = &sidecar;
        async move { sidecar.metric(&series).await }
    };
    let (written, dropped) = (lines("written").await, lines("dropped").await);
    assert!(written >= 32.0, "{written}");
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let most = 50.0 * seconds as f64;
    assert!(written <= most, "{written} lines in {seconds} s");
    assert!(
        (written + dropped - 20.0 * 10_001.0).abs() < 0.5,
        "{written} + {dropped}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_25_absurd_times_are_refused_or_cut() {
    let place = Place::new();
    let bad = [
        json!(0),
        json!(-1),
        json!(1.5),
        json!(300_001),
        json!(u64::MAX),
        json!("100"),
        json!([]),
    ];
    for (index, timeout) in bad.iter().enumerate() {
        place.misbehaving(
            &format!("bad-{index}"),
            "validator",
            json!({"timeout_ms": timeout}),
        );
    }
    for (id, timeout) in [("short", 1), ("long", 300_000)] {
        place.misbehaving(id, "validator", json!({"timeout_ms": timeout, "retry": 0}));
        for deed in ["ok", "loop"] {
            let item = json!({"id": id, "config": {"do": deed}});
            place.policy(&format!("{id}-{deed}"), json!({"validators": [item]}));
        }
    }
    // What an item says counts for its calls.
    for (index, timeout) in bad.iter().enumerate() {
        let item = json!({"id": "long", "timeout_ms": timeout});
        place.policy(&format!("item-{index}"), json!({"validators": [item]}));
    }
    let item = json!({"id": "long", "timeout_ms": 1, "config": {"do": "loop"}});
    place.policy("item-short", json!({"validators": [item]}));
    let sidecar = place.start("");
    let client = sidecar.client();
    for (index, timeout) in bad.iter().enumerate() {
        let said = problems(&sidecar, &format!("bad-{index}")).await;
        assert!(said.contains("$.timeout_ms"), "{timeout}: {said}");
        // It is said of the policy, and the default counts.
        let answer = ask(&client, &format!("item-{index}")).await;
        assert!(
            outcome(&answer).starts_with("weighted "),
            "{timeout}: {}",
            answer.text()
        );
    }
    for id in ["short-ok", "long-ok"] {
        assert!(outcome(&ask(&client, id).await).starts_with("weighted "), "{id}");
    }
    for (policy, timeout_ms) in [("short-loop", 10), ("item-short", 10), ("long-loop", 5_000)] {
        let mut answer = ask(&client, policy).await;
        // What is not begun within ten milliseconds did not run out of them, and the tests may leave no processor so
        // soon.
        for _ in 0..1_000 {
            if reason(&answer) != "extension_unavailable" {
                break;
            }
            answer = ask(&client, policy).await;
        }
        let details = &answer.json()["error"]["details"];
        assert_eq!(details["reason"], "extension_timeout", "{details}");
        assert_eq!(
            details["details"]["timeout_ms"], timeout_ms,
            "{policy}: {details}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_29_a_query_of_death_stops_its_extension_and_no_policy() {
    let place = Place::new();
    place.misbehaving("bad", "validator", json!({"config": {"do": "trap"}}));
    for on_fail in ["block", "warn", "ignore"] {
        place.policy(
            on_fail,
            json!({"validators": [{"id": "bad", "on_fail": on_fail}]}),
        );
    }
    guarded(&place, "good", "pii-guard", json!({}));
    let sidecar =
        place.start("extensions: {quarantine_after: 3, quarantine_ms: 3600000, max_quarantine_ms: 3600000}");
    let client = sidecar.client();
    for _ in 0..100 {
        ask(&client, "ignore").await;
    }
    // It was called until it was put aside, and not once more.
    let health = sidecar.admin().get("/admin/extensions/health").await.json();
    assert_eq!(health["bad"]["failures"], 3, "{health}");
    assert_eq!(reason(&ask(&client, "block").await), "extension_quarantined");
    for on_fail in ["warn", "ignore"] {
        let answer = ask(&client, on_fail).await;
        assert!(outcome(&answer).starts_with("weighted "), "{}", answer.text());
        assert_eq!(executed(&answer), [format!("validator bad {on_fail}")]);
        let evidence = &answer.json()["decision"]["explanation"]["evidence"];
        assert_eq!(evidence["extensions"][0]["error"], "extension_quarantined");
    }
    assert!(outcome(&ask(&client, "good").await).starts_with("weighted "));
    let failed =
        r#"beamline_sidecar_extension_failures_total{error="extension_quarantined",extension_id="bad"}"#;
    assert!((sidecar.metric(failed).await - 100.0).abs() < 0.5);
}
