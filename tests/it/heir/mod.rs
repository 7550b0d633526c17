//! What a HEIR answers that is not meant well, or not meant at all: nothing of it is activated, the last good
//! state is served, and the operator gets a report. A test is named after its row in the list of hostile inputs.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

mod answers;
mod availability;
pub(crate) mod coming_back;
pub(crate) mod name;
mod outage;
mod streams;
mod tls;

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{QUICK, Say, Scripted, Sidecar, eventually};

const SNAPSHOT: &str = "GET /api/v1/snapshot ";

fn stream(revision: u64, policies: &[(&str, &str)]) -> String {
    let mut text = format!("{{\"kind\":\"snapshot\",\"format\":1,\"revision\":{revision}}}\n");
    for (policy, document) in policies {
        text.push_str(&format!(
            "{{\"kind\":\"policy\",\"tenant_id\":\"acme\",\"policy_id\":\"{policy}\",\"revision\":{revision},\"policy\":{document}}}\n"
        ));
    }
    text.push_str(&format!("{{\"kind\":\"end\",\"count\":{}}}\n", policies.len()));
    text
}

fn json_answer(body: String) -> Say {
    Say::Json(200, "", body)
}

/// An answer with these header lines and this body, whatever the two make of each other.
fn bytes(headers: &str, body: impl AsRef<[u8]>) -> Say {
    let mut answer = format!("HTTP/1.1 200 OK\r\n{headers}\r\n").into_bytes();
    answer.extend_from_slice(body.as_ref());
    Say::Bytes(answer)
}

/// A HEIR with snapshots and nothing else, which has given a good one, and a sidecar that took it.
async fn start() -> (Scripted, Sidecar) {
    let heir = Scripted::start().await;
    heir.on("GET /health", json_answer("{}".into()));
    heir.on(
        SNAPSHOT,
        json_answer(stream(
            1,
            &[
                ("chat", "{\"weights\":{\"a\":1.0}}"),
                ("other", "{\"weights\":{\"a\":1.0}}"),
            ],
        )),
    );
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 5000, health_interval_ms: 100, max_answer_bytes: 1048576, breaker: {{failure_threshold: 1000}}, retry: {{max_attempts: 1}}}}
limits: {{max_body_bytes: 65536}}
refresh: {{interval_ms: 50, max_removed_percent: 100}}",
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    (heir, sidecar)
}

async fn snapshot_page(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/snapshot").await.json()
}

/// The answer is refused whole, for this reason; then a good one is taken.
async fn refused_whole(heir: &Scripted, sidecar: &Sidecar, say: Say, reason: &str) {
    let before = snapshot_page(sidecar).await["refresh"]["last_error_unix_ms"].clone();
    heir.on(SNAPSHOT, say);
    eventually(&format!("it is refused: {reason}"), || async {
        let page = snapshot_page(sidecar).await;
        page["refresh"]["state"] == "interrupted" && page["refresh"]["last_error_unix_ms"] != before
    })
    .await;
    let page = snapshot_page(sidecar).await;
    let error = page["refresh"]["last_error"].as_str().unwrap().to_owned();
    assert!(error.contains(reason), "{error} lacks {reason}");
    assert_eq!(
        (&page["policies"], &page["problem_count"]),
        (&json!(2), &json!(0))
    );
    let kept = sidecar.client().policy("acme/chat").await;
    assert_eq!(
        (kept.status, kept.text()),
        (StatusCode::OK, "{\"weights\":{\"a\":1.0}}"),
        "{reason}"
    );
    assert_eq!(sidecar.admin().get("/ready").await.json()["state"], "degraded");
    heir.on(
        SNAPSHOT,
        json_answer(stream(
            1,
            &[
                ("chat", "{\"weights\":{\"a\":1.0}}"),
                ("other", "{\"weights\":{\"a\":1.0}}"),
            ],
        )),
    );
    sidecar.wait_for("live").await;
}
