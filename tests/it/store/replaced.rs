//! SQLite's file, removed or replaced under a store that runs.

use std::{fs, os::unix::fs::FileExt, time::Duration};

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

#[tokio::test]
async fn a_store_whose_log_was_emptied_acknowledges_nothing_that_is_lost() {
    let scratch = Scratch::sqlite();
    let store = scratch.start().await;
    for n in 0..20 {
        assert_eq!(store.put(&policy(n), "{}").await.status, 201);
    }
    let log = fs::File::options()
        .write(true)
        .open(format!("{}-wal", scratch.database));
    log.unwrap().set_len(0).unwrap();
    // Its index still leads to what was in it, and what is written comes behind that.
    for n in 0..40 {
        let put = store.put(P, format!("{{\"n\":{n}}}")).await;
        assert_eq!(put.error(), (503, "storage_unavailable".into()));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(
        store.get("/health").await.error(),
        (503, "storage_unavailable".into())
    );
    store.stop().await;
}

#[tokio::test]
async fn a_store_whose_file_was_overwritten_acknowledges_nothing_once_it_has_found_out() {
    let scratch = Scratch::sqlite();
    let store = scratch.start().await;
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(200_000));
    // More than stays in the log.
    for n in 0..60 {
        assert_eq!(store.put(&policy(n), large.clone()).await.status, 201);
    }
    // As by a backup that is copied to where the file is, and not moved there.
    let file = fs::File::options().write(true).open(&scratch.database).unwrap();
    let length = file.metadata().unwrap().len();
    assert!(length > 4 << 20, "{length}");
    file.write_all_at(&vec![0; length as usize - 8192], 8192).unwrap();
    let mut damaged = 0;
    for n in 0..60 {
        let got = store.get(&policy(n)).await;
        if got.status != 200 {
            assert_eq!(got.error(), (503, "storage_unavailable".into()));
            damaged += 1;
        }
    }
    assert!(damaged > 0);
    for _ in 0..10 {
        let put = store.put(P, "{}").await;
        assert_eq!(put.error(), (503, "storage_unavailable".into()));
        let health = store.get("/health").await;
        assert_eq!(health.error(), (503, "storage_unavailable".into()));
    }
    store.stop().await;
}

#[tokio::test]
async fn a_store_whose_file_was_emptied_acknowledges_nothing() {
    let scratch = Scratch::sqlite();
    let store = scratch.start().await;
    assert_eq!(store.put(P, "{}").await.status, 201);
    let file = fs::File::options().write(true).open(&scratch.database).unwrap();
    file.set_len(0).unwrap();
    let put = store.put(P, "{\"a\":1}").await;
    assert_eq!(put.error(), (503, "storage_unavailable".into()));
    assert_eq!(
        store.get("/health").await.error(),
        (503, "storage_unavailable".into())
    );
    store.stop().await;
}

fn sha256(bytes: &[u8]) -> String {
    use sha2::{Digest, Sha256};
    Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect()
}
