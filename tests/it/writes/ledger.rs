//! Writes that HEIR has acknowledged, and what is known of them after a restart.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Proxy, SidecarProcess, StoreProcess, within};

const YAML: &str = "refresh: {interval_ms: 100, long_poll_timeout_ms: 1000}\n";

async fn conflicts(sidecar: &SidecarProcess) -> Vec<Value> {
    let page = sidecar.admin().get("/admin/writes").await.json();
    let mut conflicts: Vec<Value> = page["writes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|write| json!([write["policy_id"], write["op"], write["status"]["reason"]]))
        .collect();
    conflicts.sort_by_key(Value::to_string);
    conflicts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_before_a_kill_is_missed_in_a_heir_that_was_restored() {
    // Killed at once, so that no disk snapshot has the writes, or after one has them.
    for (what, on_disk, others_wrote) in [
        ("at once", false, false),
        ("at once, others wrote since", false, true),
        ("later", true, false),
        ("later, others wrote since", true, true),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let mut store = StoreProcess::start(&folder.path().join("heir.db"), None).await;
        for name in ["acme/old", "acme/changed", "acme/other"] {
            store.client().put_policy(name, r#"{"v":1}"#).await;
        }
        store.kill();
        let backup = store.copy();
        store.up().await;
        let proxy = Proxy::start(store.address()).await;
        let mut sidecar = SidecarProcess::start(folder.path(), proxy.address, YAML).await;
        sidecar.wait_for("live").await;
        let snapshot = folder.path().join("state/snapshot");
        within(60, "a first snapshot is on disk", || async { snapshot.exists() }).await;
        let client = sidecar.client();
        let put = client.put_policy("acme/new", r#"{"new":1}"#).await;
        assert_eq!(put.status, StatusCode::CREATED);
        let put = client.put_policy("acme/changed", r#"{"v":2}"#).await;
        assert_eq!(put.status, StatusCode::OK);
        assert_eq!(
            client.delete_policy("acme/old").await.status,
            StatusCode::NO_CONTENT
        );
        if on_disk {
            within(60, "they are on disk", || async {
                let content = std::fs::read(&snapshot).unwrap();
                let text = String::from_utf8_lossy(&content).into_owned();
                text.contains(r#"{"new":1}"#) && text.contains(r#"{"v":2}"#)
            })
            .await;
        }
        sidecar.process.kill();
        store.kill();
        store.put_back(&backup);
        store.up().await;
        if others_wrote {
            for version in 2..8 {
                let text = format!("{{\"other\":{version}}}");
                store.client().put_policy("acme/other", text).await;
            }
        }
        proxy.lead_to(store.address());
        sidecar.up().await;
        sidecar.wait_for("live").await;
        let expected = [
            json!(["changed", "put", "lost_in_restore"]),
            json!(["new", "put", "lost_in_restore"]),
            json!(["old", "delete", "lost_in_restore"]),
        ];
        within(60, &format!("{what}: all three are reported"), || async {
            conflicts(&sidecar).await == expected
        })
        .await;
        // With their content.
        let page = sidecar.admin().get("/admin/writes").await.json();
        for write in page["writes"].as_array().unwrap() {
            let path = format!("/admin/writes/{}/retry", write["id"]);
            assert_eq!(
                sidecar.admin().post(&path, "").await.status,
                StatusCode::OK,
                "{what}"
            );
        }
        within(60, "they are made again", || async {
            conflicts(&sidecar).await.is_empty()
        })
        .await;
        let heir = store.client();
        assert_eq!(heir.policy("acme/new").await.text(), r#"{"new":1}"#, "{what}");
        assert_eq!(heir.policy("acme/changed").await.text(), r#"{"v":2}"#, "{what}");
        assert_eq!(
            heir.policy("acme/old").await.status,
            StatusCode::NOT_FOUND,
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_without_a_restore_misses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreProcess::start(&folder.path().join("heir.db"), None).await;
    store.client().put_policy("acme/a", r#"{"v":1}"#).await;
    let mut sidecar = SidecarProcess::start(folder.path(), store.address(), YAML).await;
    sidecar.wait_for("live").await;
    for round in 0..4 {
        let client = sidecar.client();
        client
            .put_policy("acme/a", format!("{{\"round\":{round}}}"))
            .await;
        client
            .put_policy("acme/b", format!("{{\"round\":{round}}}"))
            .await;
        sidecar.process.kill();
        // Another client has the last word about one of them.
        store
            .client()
            .put_policy("acme/b", format!("{{\"theirs\":{round}}}"))
            .await;
        sidecar.up().await;
        sidecar.wait_for("live").await;
        within(60, "the other client's version has come", || async {
            sidecar.client().policy("acme/b").await.text() == format!("{{\"theirs\":{round}}}")
        })
        .await;
        assert_eq!(
            sidecar.client().policy("acme/a").await.text(),
            format!("{{\"round\":{round}}}")
        );
        assert!(conflicts(&sidecar).await.is_empty(), "in round {round}");
    }
}
