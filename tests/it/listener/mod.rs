//! What clients send that is not meant well. A test is named after its row in the list of hostile inputs.
mod framing;
mod http2;
mod limits;
mod log;
mod paths;

use beamline_sidecar::store::Level;

use crate::support::{Heir, Say, Scripted, Sidecar, converse};

const GOOD: &str = "GET /api/v1/policies/acme/chat HTTP/1.1\r\nhost: a\r\n\r\n";

/// A HEIR with one policy, and a sidecar that has it.
async fn start() -> (Heir, Sidecar) {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{\"of\":\"acme\"}").await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    (heir, sidecar)
}

/// The statuses of all answers in the text.
fn statuses(answers: &str) -> Vec<&str> {
    answers
        .match_indices("HTTP/1.1 ")
        .filter_map(|(at, _)| answers.get(at + 9..at + 12))
        .collect()
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")
}

/// Each target is answered 400 on a connection that then ends, and nothing of it reaches HEIR.
async fn refuses(targets: &[&str]) {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    let sidecar = Sidecar::start(&heir.url(), "refresh: {interval_ms: 3600000}");
    sidecar.wait_for("live").await;
    let before = heir.requests().len();
    for target in targets {
        for method in ["GET", "PUT", "DELETE"] {
            let (answer, closed) = converse(
                sidecar.data,
                format!("{method} {target} HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{{}}{GOOD}"),
            )
            .await;
            assert_eq!(statuses(&answer), ["400"], "{method} {target:?} {answer}");
            assert!(closed, "{method} {target:?}");
        }
    }
    let to_heir: Vec<_> = heir
        .requests()
        .into_iter()
        .skip(before)
        .filter(|head| !head.starts_with("GET /health "))
        .collect();
    assert_eq!(to_heir, Vec::<String>::new());
    sidecar.stop().await;
}
