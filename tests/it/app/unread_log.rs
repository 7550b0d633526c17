//! A log that nobody reads, or too slowly: its driver hangs, or the disk behind it does.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{path::Path, time::Duration};

use http::StatusCode;
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{Client, Process, eventually};

const DECIDE: &str = "{\"tenant_id\":\"acme\",\"policy_id\":\"chat\",\"request_id\":\"r\",\"task\":{\"type\":\"chat\",\"payload\":{\"text\":\"Hello\"}},\
                      \"version\":\"1\"}";

fn start(dir: &Path) -> (Process, Client, Client) {
    let policies = dir.join("policies/acme");
    std::fs::create_dir_all(&policies).unwrap();
    std::fs::write(policies.join("chat.json"), "{\"weights\":{\"a\":1.0}}").unwrap();
    let file = dir.join("sidecar.yaml");
    std::fs::write(
        &file,
        format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\npolicies_dir: {}\nshutdown: {{lame_duck_ms: 0}}\n\
             decide: {{log_decisions: true}}\nheir_policy_store_enabled: false",
            dir.join("policies").display()
        ),
    )
    .unwrap();
    let process = Process::start(&["run", "--config", file.to_str().unwrap()], &[]);
    let (data, admin) = (
        Client::new(&process.listen[0]),
        Client::new(process.admin.unwrap()),
    );
    (process, data, admin)
}

async fn dropped(admin: &Client, level: &str) -> u64 {
    let metrics = admin.get("/metrics").await;
    let name = format!("beamline_sidecar_log_lines_dropped_total{{level=\"{level}\"}} ");
    let line = metrics.text().lines().find_map(|line| line.strip_prefix(&name));
    line.map_or(0, |count| count.parse().unwrap())
}

/// Makes lines until some find no room.
async fn fill(data: &Client, admin: &Client) -> u64 {
    let mut lines = 0;
    while dropped(admin, "info").await == 0 {
        for _ in 0..500 {
            let answer = data.post("/api/v1/decide", DECIDE).await;
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "after {lines} lines: {}",
                answer.text()
            );
            lines += 1;
        }
        assert!(lines < 100_000, "nothing bounds what waits");
    }
    lines
}

#[tokio::test]
async fn a_log_that_nobody_reads_stops_nothing_and_says_afterwards_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, data, admin) = start(dir.path());
    process.read_log(false);
    let lines = fill(&data, &admin).await;
    assert_eq!(data.policy("acme/chat").await.status, StatusCode::OK);
    assert_eq!(admin.get("/live").await.status, StatusCode::OK);
    assert_eq!(admin.get("/ready").await.status, StatusCode::OK);
    // What an operator does finds room all the same, although the lines of decisions do not.
    let (before, of_decisions) = (dropped(&admin, "warn").await, dropped(&admin, "info").await);
    process.signal(Signal::HUP);
    assert_eq!(before, 0);
    assert_eq!(admin.get("/live").await.status, StatusCode::OK);

    process.read_log(true);
    let counts = |line: &String| {
        let line: Value = serde_json::from_str(line).unwrap();
        line["message"]
            .as_str()
            .is_some_and(|message| message.starts_with("Log lines were dropped"))
            .then(|| line["infos"].as_u64().unwrap())
    };
    eventually("it is said that lines are missing", || async {
        process.log().iter().find_map(counts).is_some()
    })
    .await;
    let told: u64 = process.log().iter().filter_map(counts).sum();
    assert!(told >= of_decisions, "{told} told, {of_decisions} dropped");
    let decided = |line: &&String| line.contains("chat");
    let written = process.log().iter().filter(decided).count() as u64;
    assert!(
        written + told >= lines,
        "{written} written and {told} dropped of {lines}"
    );

    process.signal(Signal::TERM);
    assert_eq!(process.wait(), Some(0));
    let last = process.log().pop().unwrap();
    assert!(last.contains("Stopped."), "{last}");
}

#[tokio::test]
async fn with_a_log_that_nobody_reads_it_ends_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let (mut process, data, admin) = start(dir.path());
    process.read_log(false);
    fill(&data, &admin).await;
    // Lines of the control side, too.
    for _ in 0..50 {
        process.signal(Signal::HUP);
        assert_eq!(admin.get("/live").await.status, StatusCode::OK);
    }
    process.signal(Signal::TERM);
    let ended = tokio::task::spawn_blocking(move || (process.wait(), process));
    let (code, process) = tokio::time::timeout(Duration::from_secs(60), ended)
        .await
        .unwrap()
        .unwrap();
    assert_eq!(code, Some(0));
    drop(process);
}

#[tokio::test]
async fn a_decision_about_much_is_a_short_line_that_says_what_is_missing() {
    let dir = tempfile::tempdir().unwrap();
    let (process, data, _admin) = start(dir.path());
    let mut asked: Value = serde_json::from_str(DECIDE).unwrap();
    asked["metadata"] = serde_json::json!({
        "note": "x".repeat(300_000),
        "list": vec![0; 100_000],
        "names": (0..10_000).map(|n| (format!("name-{n}"), n.into())).collect::<serde_json::Map<_, _>>(),
    });
    let (small, large) = (DECIDE.to_owned(), asked.to_string());
    assert!(large.len() > 600_000);
    for request in [small, large] {
        let answer = data.post("/api/v1/decide", request).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
    }
    let decisions = || {
        let log = process.log();
        log.into_iter()
            .filter(|line| line.contains("Routing decision"))
            .collect::<Vec<_>>()
    };
    eventually("both are logged", || async { decisions().len() == 2 }).await;
    let (small, large) = (&decisions()[0], &decisions()[1]);
    assert!(large.len() < 16 << 10, "{} bytes: {large}", large.len());
    let (small, large): (Value, Value) = (
        serde_json::from_str(small).unwrap(),
        serde_json::from_str(large).unwrap(),
    );
    assert_eq!(
        (&small["cut"], large["cut"].as_str()),
        (&Value::Null, Some("context"))
    );
    let context = large["context"].as_str().unwrap();
    assert!(serde_json::from_str::<Value>(context).is_ok(), "{context}");
    assert!(context.contains(" more\""), "{context}");
    assert!(context.contains("\"tenant_id\":\"acme\""), "{context}");
}
