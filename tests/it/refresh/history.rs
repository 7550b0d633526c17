//! Changes that do not continue what memory has.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::Value;

use crate::support::{Fault, Faulty, Heir, Sidecar, eventually};

const SOON: &str = "refresh: {interval_ms: 50, long_poll_timeout_ms: 2000, jitter_seed: 1}";

async fn admin(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/snapshot").await.json()
}

#[tokio::test]
async fn hostile_38_changes_that_do_not_continue_memory_are_never_applied() {
    let chain = "0".repeat(64);
    let poison = r#"{"op":"put","kind":"policy","revision":REV,"tenant_id":"t","policy_id":"a","policy":{"poison":1}}"#;
    let put = |revision: u64| poison.replace("REV", &revision.to_string());
    for (what, body) in [
        (
            "a wrong base",
            format!("{{\"from\":1,\"to\":9,\"changes\":[{}]}}", put(9)),
        ),
        (
            "a base to come",
            format!("{{\"from\":5,\"to\":9,\"changes\":[{}]}}", put(9)),
        ),
        (
            "an end before the base",
            "{\"from\":3,\"to\":2,\"changes\":[]}".into(),
        ),
        (
            "out of order",
            format!("{{\"from\":3,\"to\":9,\"changes\":[{},{}]}}", put(9), put(8)),
        ),
        (
            "beyond its end",
            format!("{{\"from\":3,\"to\":4,\"changes\":[{}]}}", put(9)),
        ),
        (
            "an older revision",
            format!("{{\"from\":3,\"to\":4,\"changes\":[{}]}}", put(2)),
        ),
        (
            "another history",
            format!(
                "{{\"from\":3,\"to\":4,\"from_chain\":\"{chain}\",\"to_chain\":\"{chain}\",\"changes\":[{}]}}",
                put(4)
            ),
        ),
        (
            "another history, quietly",
            format!(
                "{{\"from\":3,\"to\":3,\"from_chain\":\"{chain}\",\"to_chain\":\"{chain}\",\"changes\":[]}}"
            ),
        ),
        ("no changes at all", "{}".into()),
        ("no JSON", "<html>welcome to the guest network</html>".into()),
    ] {
        let heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("t/a", "{\"v\":1}").await;
        heir.client().put_policy("t/b", "{\"v\":1}").await;
        heir.client().put_policy("t/b", "{\"v\":2}").await;
        let faulty = Faulty::start(heir.address()).await;
        let sidecar = Sidecar::start(
            &faulty.url(),
            "refresh: {interval_ms: 500, long_poll_timeout_ms: 2000}",
        );
        sidecar.wait_for("live").await;
        eventually("the long poll waits", || async {
            faulty.count("GET /api/v1/changes") == 1
        })
        .await;
        faulty.rule(move |seen| {
            if seen.is("GET /api/v1/changes") {
                Fault::Say(200, &[], body.clone())
            } else {
                Fault::None
            }
        });
        heir.client().put_policy("t/b", "{\"v\":3}").await;
        eventually(&format!("{what}: taken whole"), || async {
            sidecar.client().policy("t/b").await.text() == "{\"v\":3}"
        })
        .await;
        heir.client().put_policy("t/b", "{\"v\":4}").await;
        eventually(&format!("{what}: taken whole again"), || async {
            sidecar.client().policy("t/b").await.text() == "{\"v\":4}"
        })
        .await;
        assert_eq!(sidecar.client().policy("t/a").await.text(), "{\"v\":1}", "{what}");
        // It asks with longer and longer pauses up to the interval, and not as fast as it is answered.
        let began = Instant::now();
        let asked = faulty.seen().len();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let more = faulty.seen().len() - asked;
        let seconds = began.elapsed().as_secs_f64();
        assert!(
            (more as f64) < 60.0 * seconds,
            "{what}: {more} requests in {seconds} s"
        );
        faulty.rule(|_| Fault::None);
        eventually("the long poll works again", || async {
            faulty.count("GET /api/v1/changes?since=5") > 0
        })
        .await;
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn hostile_38_a_restored_heir_that_was_written_to_again_is_another_one() {
    for level in [Level::Snapshot, Level::Changes] {
        let mut heir = Heir::start(level).await;
        heir.client().put_policy("t/a", "{\"v\":1}").await;
        let faulty = Faulty::start(heir.address()).await;
        let closed = Arc::new(AtomicBool::new(false));
        let is_closed = closed.clone();
        faulty.rule(move |_| {
            if is_closed.load(SeqCst) {
                Fault::Refuse
            } else {
                Fault::None
            }
        });
        let sidecar = Sidecar::start(&faulty.url(), SOON);
        sidecar.wait_for("live").await;
        heir.gone().await;
        let backup = heir.backup();
        heir.back().await;
        heir.client().put_policy("t/lost", "{}").await;
        heir.client().put_policy("t/a", "{\"v\":2}").await;
        eventually("all of it is seen", || async {
            sidecar.client().policy("t/a").await.text() == "{\"v\":2}"
        })
        .await;
        assert_eq!(admin(&sidecar).await["revision"], 3);
        closed.store(true, SeqCst);
        heir.gone().await;
        heir.restore(&backup);
        heir.back().await;
        // The same number of writes: revisions alone do not distinguish the histories.
        heir.client().put_policy("t/new", "{}").await;
        heir.client().put_policy("t/a", "{\"v\":3}").await;
        closed.store(false, SeqCst);
        eventually("the other history is taken over", || async {
            sidecar.client().policy("t/a").await.text() == "{\"v\":3}"
        })
        .await;
        assert_eq!(
            sidecar.client().policy("t/lost").await.status,
            StatusCode::NOT_FOUND
        );
        assert_eq!(sidecar.client().policy("t/new").await.status, StatusCode::OK);
        assert_eq!(admin(&sidecar).await["revision"], 3);
        sidecar.stop().await;
    }
}
