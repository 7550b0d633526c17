//! The database: shared, lost, missing, and filled from files.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::store::{Store, StoreConfig};
use sqlx::Connection;

use super::{
    P, policy,
    running::config,
    scratch::{Scratch, ask, everywhere, on_server, postgres},
};
use crate::{heir::coming_back::Lateness, support::eventually};

#[tokio::test]
async fn a_store_connects_again_when_its_database_comes_back() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server.clone(), "template0").await;
    let store = scratch.start().await;
    store.put(P, "{}").await;
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        scratch.name()
    );
    on_server(&server, sql).await;
    assert_eq!(store.get(P).await.body, "{}");
    assert_eq!(store.put(P, "{\"n\":2}").await.revision(), 2);
    store.stop().await;
    scratch.remove().await;
}

#[tokio::test]
async fn stores_that_share_a_database_take_turns_and_hear_of_each_other() {
    everywhere(async |scratch| {
        // One after the other: which of two processes creates the tables is the operator's choice.
        let one = scratch.start().await;
        let two = scratch.start().await;
        let waiting = {
            let client = two.client.clone();
            tokio::spawn(async move { client.get("/api/v1/changes?since=0&wait_ms=30000").await })
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
        let written = Instant::now();
        one.put(P, "{}").await;
        assert_eq!(waiting.await.unwrap().json()["to"], 1);
        // By looking, and not at the end of its wait.
        assert!(written.elapsed() < Duration::from_secs(20));

        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let client = if writer % 2 == 0 { &one } else { &two }.client.clone();
                tokio::spawn(async move {
                    let mut revisions = Vec::new();
                    for n in 0..10 {
                        let put = client.put(&policy(format!("{writer}-{n}")), "{}").await;
                        assert_eq!(put.status, 201);
                        revisions.push(put.revision());
                    }
                    revisions
                })
            })
            .collect();
        let mut revisions = Vec::new();
        for writer in writers {
            revisions.extend(writer.await.unwrap());
        }
        revisions.sort_unstable();
        assert_eq!(revisions, (2..=81).collect::<Vec<_>>());
        assert_eq!(one.position().await, two.position().await);
        one.stop().await;
        two.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_server_that_has_become_read_only_asks_writers_to_come_back() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server.clone(), "template0").await;
    let store = scratch.start().await;
    store.put(P, "{}").await;
    scratch.become_read_only(true).await;
    for _ in 0..10 {
        let refused = store.put(P, "{\"n\":2}").await;
        assert_eq!(refused.error(), (503, "overloaded".into()));
        assert!(refused.find_header("retry-after").is_some());
        assert_eq!(store.get(P).await.body, "{}");
    }
    scratch.become_read_only(false).await;
    eventually("it writes again", || async {
        store.put(P, "{\"n\":3}").await.status == 200
    })
    .await;
    store.stop().await;
    scratch.remove().await;
}

#[tokio::test]
async fn a_statement_that_is_cancelled_asks_its_writer_to_come_back() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server.clone(), "template0").await;
    let store = scratch.start().await;
    assert_eq!(store.put(P, "{}").await.status, 201);
    // A write waits for another's lock, and an administrator cancels what waits.
    let lock = scratch.lock().await;
    let writer = {
        let client = store.client.clone();
        tokio::spawn(async move { client.put(P, "{\"n\":2}").await })
    };
    let cancelled = format!(
        "SELECT COUNT(*) FROM (SELECT pg_cancel_backend(pid) FROM pg_stat_activity
         WHERE datname = '{}' AND wait_event_type = 'Lock') AS cancelled",
        scratch.name()
    );
    eventually("it is met while it waits", || async {
        ask(&server, cancelled.clone()).await > 0
    })
    .await;
    let refused = writer.await.unwrap();
    assert_eq!(refused.error(), (503, "overloaded".into()));
    assert!(refused.find_header("retry-after").is_some());
    lock.close().await.unwrap();
    assert_eq!(store.get(P).await.body, "{}");
    assert_eq!(store.put(P, "{\"n\":3}").await.status, 200);
    assert_eq!(store.position().await.0, 2);
    store.stop().await;
    scratch.remove().await;
}

#[tokio::test]
async fn health_does_not_wait_behind_lists() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let document = format!("{{\"a\":\"{}\"}}", "x".repeat(2_000));
        for n in 0..100 {
            assert_eq!(store.put(&policy(n), document.clone()).await.status, 201);
        }
        let done = Arc::new(AtomicUsize::new(0));
        let begun = Arc::new(AtomicUsize::new(0));
        let lists: Vec<_> = (0..60)
            .map(|_| {
                let (client, done, begun) = (store.client.clone(), done.clone(), begun.clone());
                tokio::spawn(async move {
                    begun.fetch_add(1, SeqCst);
                    let list = client.get("/api/v1/policies/acme").await;
                    // On a busy machine the last may wait for longer than they may.
                    assert!(list.status == 200 || list.error() == (503, "overloaded".into()));
                    done.fetch_add(1, SeqCst);
                })
            })
            .collect();
        eventually("a list is there", || async { done.load(SeqCst) > 0 }).await;
        assert_eq!(begun.load(SeqCst), 60);
        assert_eq!(store.get("/health").await.status, 200);
        let before = done.load(SeqCst);
        assert!(before < 45, "{before} lists were answered first");
        for list in lists {
            list.await.unwrap();
        }
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn the_text_of_a_large_answer_is_made_beside_the_thread_of_all_requests() {
    let scratch = Scratch::sqlite();
    // In this test's thread, as everything here that is not made aside.
    let store = scratch.start().await;
    let document = format!("{{\"a\":\"{}\"}}", "x".repeat(900_000));
    for n in 0..20 {
        assert_eq!(store.put(&policy(n), document.clone()).await.status, 201);
    }
    for path in [
        "/api/v1/policies/acme",
        "/api/v1/changes?since=0",
        "/api/v1/snapshot",
    ] {
        // The machine may be late by itself, but not each time.
        eventually("the thread is free while it is made", || async {
            let (lateness, begun) = (Lateness::measured(), Instant::now());
            assert_eq!(store.get(path).await.status, 200);
            lateness.worst() < begun.elapsed() / 4
        })
        .await;
    }
    store.stop().await;
}

#[tokio::test]
async fn good_files_are_imported_and_bad_ones_named() {
    everywhere(async |scratch| {
        let folder = scratch.folder.path().join("policies");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        };
        write("acme/chat.json", "{\n}");
        write("acme/same.json", "{}");
        write("acme/torn.json", "{\"a\":");
        write("acme/twice.json", "{\"a\":1,\"a\":2,\"b\":1,\"b\":2}");
        write("acme/notes.txt", "not a policy");
        write("acme/b d.json", "{}");
        write("acme/large.json", &format!("{{\"a\":\"{}\"}}", "x".repeat(2000)));
        write("no tenant/p.json", "{}");
        write("README.md", "hello");
        write("..data/p.json", "{}");
        let start = async || {
            let config = StoreConfig {
                database: scratch.database.clone(),
                import: Some(folder.clone()),
                max_body_bytes: 1000,
                ..config()
            };
            let store = Store::build(config).await.unwrap();
            store.import().unwrap().clone()
        };
        let import = start().await;
        assert_eq!((import.created, import.replaced, import.unchanged), (2, 0, 0));
        let bad: Vec<(PathBuf, usize)> = import
            .bad
            .iter()
            .map(|bad| {
                (
                    bad.path.strip_prefix(&folder).unwrap().to_owned(),
                    bad.problems.len(),
                )
            })
            .collect();
        let expected = [
            ("README.md", 1),
            ("acme/b d.json", 1),
            ("acme/large.json", 1),
            ("acme/notes.txt", 1),
            ("acme/torn.json", 1),
            ("acme/twice.json", 2),
            ("no tenant", 1),
        ];
        assert_eq!(
            bad,
            expected.map(|(path, problems)| (PathBuf::from(path), problems))
        );

        write("acme/chat.json", "{\"n\":2}");
        let import = start().await;
        assert_eq!((import.created, import.replaced, import.unchanged), (0, 1, 1));
        let store = scratch.start().await;
        assert_eq!(store.get(P).await.body, "{\"n\":2}");
        assert_eq!(store.position().await.0, 3);
        store.stop().await;
    })
    .await;
    let missing = StoreConfig {
        import: Some("/nowhere/at all".into()),
        ..config()
    };
    let error = Store::build(missing).await.unwrap_err().to_string();
    assert_eq!(error, "cannot import the policies in /nowhere/at all");
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_without_its_password() {
    let broken = StoreConfig {
        database: "/nowhere/at/all.db".to_owned(),
        ..config()
    };
    let error = Store::build(broken).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot open the policy store's database (/nowhere/at/all.db)"
    );
    let broken = StoreConfig {
        database: "postgres://me:s3cret@127.0.0.1:1/db".to_owned(),
        ..config()
    };
    assert!(!format!("{broken:?}").contains("s3cret"));
    let error = Store::build(broken).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}
