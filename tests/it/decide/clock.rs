//! The system's clock is set while decisions are made: nothing waits for longer, and deadlines and what is shown follow it.

use std::time::Duration;

use beamline_sidecar::clock;
use serde_json::{Value, json};

use crate::{
    decide::{decide, outcome, request, with_policies},
    support::{Sidecar, eventually},
};

const DAY_MS: i64 = 86_400_000;

/// Sets the clock that this process sees, and waits until the sidecar has noticed.
async fn set_clock(by_ms: i64) {
    clock::step_wall(by_ms);
    let before = clock::ahead_ms();
    eventually("the step is noticed", || async {
        clock::ahead_ms().abs_diff(before) > by_ms.unsigned_abs() / 2
    })
    .await;
}

async fn breaker_state(sidecar: &Sidecar) -> Value {
    let page = sidecar.admin().get("/admin/providers?tenant=acme").await.json();
    page["providers"][0]["breaker"].clone()
}

#[tokio::test]
async fn hostile_56_a_breaker_is_open_for_as_long_as_it_says_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({
        "weights": {"alpha": 1.0},
        "circuit_breaker": {"enabled": true, "failure_threshold": 1, "timeout_ms": 1_000},
        "fallbacks": [{"when": {"status": ["circuit_breaker_open"]}, "to": "spare"}],
    });
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let (client, asked) = (sidecar.client(), request("acme", "chat", json!({})));
    for (turn, step) in [-DAY_MS, 2 * DAY_MS, -30_000].into_iter().enumerate() {
        eventually("alpha is used", || async {
            outcome(&decide(&client, &asked, &[]).await) == "weighted alpha"
        })
        .await;
        let failed = json!({
            "version": "1", "tenant_id": "acme", "assignment_id": format!("f{turn}"), "status": "timeout",
            "provider_id": "alpha",
        });
        client.post("/api/v1/results", failed.to_string()).await;
        set_clock(step).await;
        let shown = breaker_state(&sidecar).await;
        let changed_at = shown["state_changed_at"].as_u64().unwrap();
        assert!(
            clock::wall().unix_ms.abs_diff(changed_at) < 60_000,
            "it is shown by the clock as it is"
        );
        assert!(shown["elapsed_ms"].as_u64().unwrap() < 60_000, "{shown}");
    }
    eventually("alpha is used", || async {
        outcome(&decide(&client, &asked, &[]).await) == "weighted alpha"
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_56_a_session_ends_when_its_time_is_over_whatever_the_clock_says() {
    let dir = tempfile::tempdir().unwrap();
    let policy = json!({
        "weights": {"alpha": 1.0},
        "sticky": {"enabled": true, "session_key": "user_id", "ttl_seconds": 2},
    });
    let sidecar = with_policies(dir.path(), &[("acme/chat", policy)], "");
    let (client, asked) = (
        sidecar.client(),
        request("acme", "chat", json!({"user_id": "ada"})),
    );
    assert_eq!(outcome(&decide(&client, &asked, &[]).await), "weighted alpha");
    set_clock(-DAY_MS).await;
    // Each use gives it as much time again, so that it is left alone for that long.
    tokio::time::sleep(Duration::from_millis(3_100)).await;
    assert_eq!(outcome(&decide(&client, &asked, &[]).await), "weighted alpha");
    assert_eq!(outcome(&decide(&client, &asked, &[]).await), "sticky alpha");
    set_clock(DAY_MS).await;
    let page = sidecar.admin().get("/admin/sticky?tenant=acme").await.json();
    let last_set = page["list"][0]["last_set"].as_u64().unwrap();
    assert!(last_set.abs_diff(clock::wall().unix_ms / 1_000) < 60, "{page}");
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_56_a_deadline_is_told_by_the_clock_as_it_stands() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = with_policies(
        dir.path(),
        &[("acme/chat", json!({"weights": {"alpha": 1.0}}))],
        "",
    );
    let client = sidecar.client();
    for step in [0, -DAY_MS, 3 * DAY_MS] {
        if step != 0 {
            set_clock(step).await;
        }
        for (left_ms, expected) in [(600_000, "weighted alpha"), (-600_000, "504 internal")] {
            let deadline = clock::wall().shifted(left_ms).unix_ms;
            let asked = request("acme", "chat", json!({"deadline": deadline}));
            assert_eq!(
                outcome(&decide(&client, &asked, &[]).await),
                expected,
                "{step} {left_ms}"
            );
        }
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_56_the_date_of_answers_goes_back_with_the_clock() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = with_policies(
        dir.path(),
        &[("acme/chat", json!({"weights": {"alpha": 1.0}}))],
        "",
    );
    let client = sidecar.client();
    let date = async || client.policy("acme/chat").await.header("date").to_owned();
    let before = date().await;
    set_clock(-DAY_MS).await;
    // It is yesterday's, and it does not stand still.
    let first = date().await;
    assert_ne!(before[..16], first[..16], "{before} {first}");
    eventually("it goes on", || async {
        tokio::time::sleep(Duration::from_millis(50)).await;
        date().await != first
    })
    .await;
    set_clock(DAY_MS).await;
    eventually("it is today's", || async { date().await[..16] == before[..16] }).await;
    sidecar.stop().await;
}
