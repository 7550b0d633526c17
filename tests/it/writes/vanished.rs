//! A state directory that is taken away under a sidecar, and that comes back empty.

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::json;

use crate::{
    support::{Heir, Sidecar, eventually, within},
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

#[tokio::test]
async fn a_state_directory_that_was_replaced_is_locked_and_filled_again_long_before_anything_changes() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", r#"{"v":1}"#).await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let sidecar = Sidecar::start(&heir.url(), &with_state(&state));
    sidecar.wait_for("live").await;
    // A write through here, which the ledger knows.
    assert!(
        sidecar
            .client()
            .put_policy("acme/b", r#"{"v":1}"#)
            .await
            .status
            .is_success()
    );
    eventually("all of it is on disk", || async {
        let saved = std::fs::read(state.join("snapshot")).unwrap_or_default();
        String::from_utf8_lossy(&saved).matches(r#"{"v":1}"#).count() == 2
    })
    .await;
    let ledger = std::fs::read(state.join("ledger")).unwrap();
    assert!(!ledger.is_empty());
    for makes in [true, false] {
        std::fs::remove_dir_all(&state).unwrap();
        if makes {
            std::fs::create_dir(&state).unwrap();
        } else {
            // Another directory in its place, which is not empty.
            let other = folder.path().join("other");
            std::fs::create_dir(&other).unwrap();
            std::fs::write(other.join("snapshot"), "of another time").unwrap();
            std::fs::rename(&other, &state).unwrap();
        }
        // Without a word it would be looked at a minute after the last time, which was just now.
        within(30, "the snapshot and the ledger are there again", || async {
            let saved = std::fs::read(state.join("snapshot")).unwrap_or_default();
            String::from_utf8_lossy(&saved).matches(r#"{"v":1}"#).count() == 2
                && std::fs::read(state.join("ledger")).is_ok_and(|again| !again.is_empty())
        })
        .await;
        let lock = std::fs::File::open(state.join("lock")).unwrap();
        assert!(lock.try_lock().is_err(), "another process could have it");
        let second = Sidecar::try_start(&format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\n{}",
            with_state(&state)
        ));
        assert!(second.is_err_and(|error| error.contains("StateDirInUse")));
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn what_waits_is_written_again_where_the_state_directory_was_replaced_and_nothing_is_put_there_meanwhile()
 {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", r#"{"v":1}"#).await;
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().join("state");
    let sidecar = Sidecar::start(&heir.url(), &with_state(&state));
    sidecar.wait_for("live").await;
    heir.gone().await;
    let client = sidecar.client();
    assert!(is_queued(&client.put_policy("acme/a", r#"{"v":2}"#).await));
    // Another process is quicker, sooner or later.
    let theirs = loop {
        std::fs::remove_dir_all(&state).unwrap();
        std::fs::create_dir(&state).unwrap();
        let theirs = std::fs::File::create(state.join("lock")).unwrap();
        if theirs.try_lock().is_ok() {
            break theirs;
        }
    };
    let refused = client.put_policy("acme/b", r#"{"v":2}"#).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable".into())
    );
    assert!(
        !state.join("journal").exists(),
        "the directory is another process's"
    );
    drop(theirs);
    within(30, "what waits is there again", || async {
        let files = std::fs::read_dir(state.join("journal"));
        files.is_ok_and(|mut files| {
            files.any(|file| {
                file.unwrap()
                    .path()
                    .extension()
                    .is_some_and(|kind| kind == "write")
            })
        })
    })
    .await;
    sidecar.abort().await;
    heir.back().await;
    let sidecar = Sidecar::start(&heir.url(), &with_state(&state));
    replayed(&sidecar).await;
    assert_eq!(heir.client().policy("acme/a").await.text(), r#"{"v":2}"#);
    sidecar.stop().await;
}
