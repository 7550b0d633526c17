//! A disk that is full for a while.

use beamline_sidecar::store::StoreConfig;
use http::StatusCode;

use super::{
    P, SNAPSHOT, policy,
    running::{Running, config},
};
use crate::support::{SmallDisk, eventually};

#[tokio::test]
async fn a_full_disk_stops_writes_alone_and_only_while_it_is_full() {
    let Some(disk) = SmallDisk::mount("48m") else {
        return;
    };
    let store = Running::start(StoreConfig {
        database: disk.path().join("store.db").to_str().unwrap().to_owned(),
        ..config()
    })
    .await;
    let large = |n: usize| format!("{{\"n\":{n},\"a\":\"{}\"}}", "x".repeat(300_000));
    assert_eq!(store.put(P, "{}").await.status, 201);
    assert_eq!(store.put(&policy("large"), large(0)).await.status, 201);
    assert_eq!(store.get("/health").await.status, 200);

    disk.fill();
    // What SQLite's log has room for already may still succeed. One after the other and together, so that every
    // connection meets the full disk.
    let mut refused = 0;
    for n in 0..40 {
        let put = store.put(&policy("large"), large(n + 1)).await;
        if put.status.is_success() {
            continue;
        }
        refused += 1;
        assert_eq!(put.error(), (507, "storage_full".into()));
        assert!(put.find_header("retry-after").is_some());
        for path in [P, "/api/v1/policies/acme", SNAPSHOT, "/api/v1/changes?since=0"] {
            assert_eq!(store.get(path).await.status, 200, "{path}");
        }
    }
    assert!(refused > 20, "{refused}");
    assert_eq!(store.get(P).await.body, "{}");
    let sick = store.get("/health").await;
    assert_eq!(sick.error(), (507, "storage_full".into()));

    disk.free();
    eventually("the store finds by itself that there is room again", || async {
        store.get("/health").await.status == StatusCode::OK
    })
    .await;
    let puts = (0..20).map(|n| {
        let client = store.client.clone();
        let body = large(100 + n);
        tokio::spawn(async move {
            loop {
                let put = client.put(&policy("large"), body.clone()).await;
                // On a busy machine the last may wait for longer than they may.
                if put.status != 503 || put.error() != (503, "overloaded".into()) {
                    return put.status;
                }
            }
        })
    });
    for put in puts.collect::<Vec<_>>() {
        assert_eq!(put.await.unwrap(), StatusCode::OK);
    }
    let last = store.position().await.0 - 1;
    let reads = (0..20).map(|_| {
        let client = store.client.clone();
        tokio::spawn(async move {
            let changes = format!("/api/v1/changes?since={last}");
            for path in [P, "/api/v1/policies/acme", SNAPSHOT, changes.as_str()] {
                assert_eq!(client.get(path).await.status, 200, "{path}");
            }
        })
    });
    for read in reads.collect::<Vec<_>>() {
        read.await.unwrap();
    }
    store.stop().await;
}
