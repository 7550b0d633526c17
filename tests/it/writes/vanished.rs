//! A state directory that is taken away under a sidecar, and that comes back empty.

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::json;

use crate::{
    support::{Heir, Sidecar, eventually},
    writes::put_delete::{is_queued, replayed, with_state, writes},
};

#[tokio::test]
async fn a_state_directory_that_vanished_and_came_back_keeps_writes_again() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", r#"{"v":1}"#).await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let sidecar = Sidecar::start(&heir.url(), &with_state(&state));
    sidecar.wait_for("live").await;
    heir.gone().await;
    let client = sidecar.client();
    for name in ["acme/a", "acme/b"] {
        assert!(is_queued(&client.put_policy(name, r#"{"v":2}"#).await));
    }
    assert!(is_queued(&client.delete_policy("acme/b").await));
    std::fs::remove_dir_all(&state).unwrap();
    let refused = client.put_policy("acme/c", r#"{"v":2}"#).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable".into()),
        "there is nowhere to keep it"
    );
    assert!(
        !state.exists(),
        "it is not made where it may be meant to be mounted"
    );
    std::fs::create_dir(&state).unwrap();
    assert!(is_queued(&client.put_policy("acme/c", r#"{"v":2}"#).await));
    // What was acknowledged before is on the disk again.
    let files = || {
        std::fs::read_dir(state.join("journal")).map_or(0, |files| {
            files
                .filter(|file| {
                    file.as_ref()
                        .unwrap()
                        .path()
                        .extension()
                        .is_some_and(|kind| kind == "write")
                })
                .count()
        })
    };
    let waiting = writes(&sidecar).await["queued"].as_u64().unwrap();
    eventually("all of them are there", || async { files() as u64 == waiting }).await;
    sidecar.abort().await;
    heir.back().await;
    let sidecar = Sidecar::start(&heir.url(), &with_state(&state));
    sidecar.wait_for("live").await;
    replayed(&sidecar).await;
    assert_eq!(writes(&sidecar).await["writes"], json!([]));
    for (name, expected) in [
        ("acme/a", StatusCode::OK),
        ("acme/b", StatusCode::NOT_FOUND),
        ("acme/c", StatusCode::OK),
    ] {
        assert_eq!(heir.client().policy(name).await.status, expected, "{name}");
    }
    assert_eq!(heir.client().policy("acme/a").await.text(), r#"{"v":2}"#);
    sidecar.stop().await;
}

#[tokio::test]
async fn what_is_kept_for_the_next_start_is_there_again_after_the_state_directory_vanished() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", r#"{"v":1}"#).await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let sidecar = Sidecar::start(&heir.url(), &with_state(&state));
    sidecar.wait_for("live").await;
    eventually("the snapshot is on disk", || async {
        state.join("snapshot").exists()
    })
    .await;
    std::fs::remove_dir_all(&state).unwrap();
    std::fs::create_dir(&state).unwrap();
    // The end writes once more, although nothing has changed.
    sidecar.stop().await;
    assert!(state.join("snapshot").exists());
}
