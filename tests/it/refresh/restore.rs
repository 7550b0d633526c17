//! A HEIR that is restored from a backup: its state is taken over, and what it lost is reported.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Heir, Sidecar, eventually};

/// No refresh by itself comes within a test, only those that are asked for.
const SELDOM: &str = "refresh: {interval_ms: 3600000, long_poll_timeout_ms: 60000}";

/// The writes that wait for an operator: policy, operation, reason.
async fn reported(sidecar: &Sidecar) -> Vec<Value> {
    let page = sidecar.admin().get("/admin/writes").await.json();
    let writes = page["writes"].as_array().unwrap().clone();
    let short = |write: &Value| json!([write["policy_id"], write["op"], write["status"]["reason"]]);
    writes.iter().map(short).collect()
}

async fn refresh(sidecar: &Sidecar) {
    let answer = sidecar.admin().post("/admin/refresh", "").await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
}

async fn restored(heir: &mut Heir, backup: &[u8]) {
    heir.gone().await;
    heir.restore(backup);
    heir.back().await;
}

async fn backup(heir: &mut Heir) -> Vec<u8> {
    heir.gone().await;
    let backup = heir.backup();
    heir.back().await;
    backup
}

#[tokio::test]
async fn a_backup_that_is_the_very_snapshot_the_sidecar_began_with_is_no_news_but_a_loss() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", r#"{"n":1}"#).await;
    let old = backup(&mut heir).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let written = sidecar.client().put_policy("acme/a", r#"{"n":2}"#).await;
    assert_eq!(written.status, StatusCode::OK);
    eventually("the change has come from HEIR", || async {
        sidecar
            .client()
            .policy("acme/a")
            .await
            .header("x-beamline-snapshot-revision")
            == "2"
    })
    .await;
    restored(&mut heir, &old).await;
    eventually("HEIR's version is taken over", || async {
        sidecar.client().policy("acme/a").await.text() == r#"{"n":1}"#
    })
    .await;
    eventually("the lost write is reported", || async {
        reported(&sidecar).await == [json!(["a", "put", "lost_in_restore"])]
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_write_that_is_lost_before_the_next_refresh_is_missed() {
    for others_wrote in [false, true] {
        let mut heir = Heir::start(Level::Snapshot).await;
        for policy in ["a", "b", "c"] {
            heir.client()
                .put_policy(&format!("acme/{policy}"), r#"{"n":1}"#)
                .await;
        }
        let old = backup(&mut heir).await;
        let sidecar = Sidecar::start(&heir.url(), SELDOM);
        sidecar.wait_for("live").await;
        // It looks thrice before it knows that this HEIR has no changes; then the next time is far off.
        eventually("it has found out what HEIR can do", || async {
            sidecar
                .metric("beamline_sidecar_refresh_total{outcome=\"unchanged\"}")
                .await
                >= 2.0
        })
        .await;
        let client = sidecar.client();
        assert_eq!(
            client.put_policy("acme/a", r#"{"n":2}"#).await.status,
            StatusCode::OK
        );
        assert_eq!(
            client.delete_policy("acme/b").await.status,
            StatusCode::NO_CONTENT
        );
        restored(&mut heir, &old).await;
        if others_wrote {
            // HEIR reaches the revision of the lost writes, by other ones.
            for number in 0..5 {
                heir.client()
                    .put_policy("acme/c", format!("{{\"n\":{number}}}"))
                    .await;
            }
        }
        refresh(&sidecar).await;
        for policy in ["acme/a", "acme/b", "acme/c"] {
            let (ours, theirs) = (client.policy(policy).await, heir.client().policy(policy).await);
            assert_eq!((ours.status, ours.body), (theirs.status, theirs.body), "{policy}");
        }
        eventually("both lost writes are reported", || async {
            let mut reported = reported(&sidecar).await;
            reported.sort_by_key(Value::to_string);
            let expected = [
                json!(["a", "put", "lost_in_restore"]),
                json!(["b", "delete", "lost_in_restore"]),
            ];
            reported == expected
        })
        .await;
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn lost_writes_are_reported_however_many_there_are() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", r#"{"n":1}"#).await;
    let old = backup(&mut heir).await;
    let sidecar = Sidecar::start(&heir.url(), "writes: {max_queued: 1}");
    sidecar.wait_for("live").await;
    for policy in ["a", "b", "c"] {
        let written = sidecar
            .client()
            .put_policy(&format!("acme/{policy}"), r#"{"n":2}"#)
            .await;
        assert!(written.status.is_success(), "{}", written.text());
    }
    restored(&mut heir, &old).await;
    eventually("all three are reported", || async {
        reported(&sidecar).await.len() == 3
    })
    .await;
    sidecar.stop().await;
}
