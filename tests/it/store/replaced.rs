//! SQLite's file, removed or replaced under a store that runs.

use std::fs;

use super::{P, SNAPSHOT, policy, scratch::Scratch};

#[tokio::test]
async fn a_store_whose_file_is_not_in_its_place_acknowledges_nothing() {
    let scratch = Scratch::sqlite();
    let store = scratch.start().await;
    assert_eq!(store.put(P, "{}").await.status, 201);
    let away = scratch.folder.path().join("away.db");
    let refused = async || {
        for (name, body) in [("new", "{}"), ("chat", "{\"a\":1}")] {
            let put = store.put(&policy(name), body).await;
            assert_eq!(put.error(), (503, "storage_unavailable".into()));
            assert!(put.find_header("retry-after").is_some());
        }
        let module = format!("/api/v1/modules/{}", sha256(b"abc"));
        assert_eq!(store.put(&module, "abc").await.status, 503);
        assert_eq!(store.delete(P).await.status, 503);
        assert_eq!(
            store.get("/health").await.error(),
            (503, "storage_unavailable".into())
        );
        // What it has it still tells.
        for path in [P, SNAPSHOT, "/api/v1/changes?since=0"] {
            assert_eq!(store.get(path).await.status, 200, "{path}");
        }
    };
    fs::rename(&scratch.database, &away).unwrap();
    refused().await;
    fs::write(&scratch.database, "another").unwrap();
    refused().await;
    fs::rename(&away, &scratch.database).unwrap();
    assert_eq!(store.get("/health").await.status, 200);
    assert_eq!(store.put(P, "{\"a\":2}").await.status, 200);
    store.stop().await;
    let store = scratch.start().await;
    assert_eq!(store.get(P).await.body, "{\"a\":2}");
    store.stop().await;
}

#[tokio::test]
async fn a_store_whose_log_alone_was_removed_acknowledges_nothing_either() {
    for end in ["-wal", "-shm"] {
        let scratch = Scratch::sqlite();
        let store = scratch.start().await;
        assert_eq!(store.put(P, "{}").await.status, 201);
        let log = format!("{}{end}", scratch.database);
        let refused = async || {
            let put = store.put(P, "{\"a\":1}").await;
            assert_eq!(put.error(), (503, "storage_unavailable".into()), "{end}");
            let health = store.get("/health").await;
            assert_eq!(health.error(), (503, "storage_unavailable".into()), "{end}");
            assert_eq!(store.get(P).await.body, "{}");
        };
        // Moved away it is written to all the same, and comes back as it is.
        let away = format!("{log}.away");
        fs::rename(&log, &away).unwrap();
        refused().await;
        fs::rename(&away, &log).unwrap();
        assert_eq!(store.get("/health").await.status, 200);
        assert_eq!(store.put(P, "{\"a\":2}").await.status, 200);
        assert_eq!(store.put(P, "{}").await.status, 200);
        fs::remove_file(&log).unwrap();
        refused().await;
        // What was acknowledged is in the file once the store has ended.
        store.stop().await;
        let store = scratch.start().await;
        assert_eq!(store.get(P).await.body, "{}");
        assert_eq!(store.put(P, "{\"a\":3}").await.status, 200);
        store.stop().await;
    }
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
