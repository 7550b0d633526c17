//! Clients that give up: what they asked for leaves nothing behind, and does not happen later.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use sqlx::Connection;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{
    P,
    line::Line,
    policy,
    scratch::{Scratch, ask, everywhere, postgres},
};
use crate::{
    heir::coming_back::Lateness,
    support::{eventually, send},
};

/// Eight of the pool, and the one with which a store finds that there is a database.
const CONNECTIONS: usize = 9;

#[tokio::test]
async fn a_read_that_is_given_up_leaves_no_transaction_behind() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server.clone(), "template0").await;
    let line = Line::to(&scratch).await;
    let store = scratch
        .start_with(|config| config.database.clone_from(&line.database))
        .await;
    for n in 0..5 {
        assert_eq!(store.put(&policy(n), "{}").await.status, 201);
    }
    let (stop, aborted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let aborters: Vec<_> = (0..2)
        .map(|_| {
            let (stop, aborted, address) = (stop.clone(), aborted.clone(), store.address);
            tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    for path in [
                        "/api/v1/policies/acme",
                        "/api/v1/snapshot",
                        "/api/v1/changes?since=0",
                    ] {
                        let connection =
                            send(address, &format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
                        // In the middle of any of the round trips.
                        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..100))).await;
                        drop(connection);
                        aborted.fetch_add(1, SeqCst);
                    }
                }
            })
        })
        .collect();
    let mut etag = String::new();
    let mut pairs = 0;
    while aborted.load(SeqCst) < 100 || pairs < 10 {
        pairs += 1;
        let body = format!("{{\"n\":{pairs}}}");
        let put = store.put(P, body.clone()).await;
        assert!(put.status.is_success(), "{put:?}");
        let got = store.get_with(P, &[("if-none-match", &etag)]).await;
        assert_eq!((got.status, &got.body[..]), (StatusCode::OK, body.as_bytes()));
        etag = got.header("etag").to_owned();
        let list = store.get("/api/v1/policies/acme").await;
        assert!(list.text().contains(&format!("\"n\":{pairs}")), "{}", list.text());
        let changes = store
            .get(&format!("/api/v1/changes?since={}", put.revision() - 1))
            .await;
        assert_eq!(changes.status, 200, "{changes:?}");
        assert_eq!(changes.json()["to"], put.revision());
    }
    stop.store(true, SeqCst);
    for aborter in aborters {
        aborter.await.unwrap();
    }
    eventually("no transaction is open", || async {
        let open = format!(
            "SELECT COUNT(*) FROM pg_stat_activity WHERE datname = '{}' AND xact_start IS NOT NULL",
            scratch.name()
        );
        ask(&server, open).await == 0
    })
    .await;
    assert!(line.connections() <= CONNECTIONS, "{}", line.connections());
    store.stop().await;
    scratch.remove().await;
}

#[tokio::test]
async fn connections_that_are_cut_cost_no_acknowledged_write() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server, "template0").await;
    let line = Line::to(&scratch).await;
    let store = scratch
        .start_with(|config| config.database.clone_from(&line.database))
        .await;
    let mut acknowledged = 0;
    for n in 1..=40 {
        if n % 5 == 0 {
            line.cut();
        }
        let put = store.put(P, format!("{{\"n\":{n}}}")).await;
        match put.status.as_u16() {
            200 | 201 => acknowledged = n,
            503 => {}
            other => panic!("{other}: {put:?}"),
        }
        let got = store.get(P).await;
        match got.status.as_u16() {
            // The answer to a commit may be lost where the commit is not.
            200 => assert!(
                [acknowledged, n]
                    .map(|n| serde_json::json!(n))
                    .contains(&got.json()["n"]),
                "{n} {acknowledged} {got:?}"
            ),
            404 if acknowledged == 0 => {}
            503 => {}
            other => panic!("{other}: {got:?}"),
        }
    }
    assert!(acknowledged > 0);
    store.stop().await;
    scratch.remove().await;
}

#[tokio::test]
async fn writers_wait_for_seconds_and_are_then_asked_to_come_back() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let lock = scratch.lock().await;
        let (begun, lateness) = (Instant::now(), Lateness::measured());
        let writers: Vec<_> = (0..30)
            .map(|n| {
                let client = store.client.clone();
                tokio::spawn(async move { client.put(&policy(n), "{}").await })
            })
            .collect();
        for writer in writers {
            let refused = writer.await.unwrap();
            assert_eq!(refused.error(), (503, "overloaded".into()));
            assert!(refused.find_header("retry-after").is_some());
        }
        // Each of them, and not one after the other.
        let (after, allowed) = (begun.elapsed(), Duration::from_secs(6) + lateness.allows());
        assert!(after < allowed, "{after:?}, allowed are {allowed:?}");
        // Readers have not waited.
        assert_eq!(store.get("/api/v1/policies/acme").await.status, 200);
        lock.close().await.unwrap();
        assert_eq!(store.put(P, "{}").await.status, 201);
        assert_eq!(store.position().await.0, 1);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_write_whose_client_has_gone_does_not_come_later() {
    everywhere(async |scratch| {
        let one = scratch.start().await;
        let two = scratch.start().await;
        let lock = scratch.lock().await;
        // The first waits for the lock, the others for the first.
        let mut gone = Vec::new();
        for n in 0..3 {
            let body = format!("{{\"old\":{n}}}");
            let request = format!(
                "PUT {P} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            );
            gone.push(send(one.address, &request).await);
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        for client in gone {
            leave(client).await;
        }
        let newer = {
            let client = two.client.clone();
            tokio::spawn(async move {
                loop {
                    let put = client.put(P, "{\"new\":1}").await;
                    if put.status != StatusCode::SERVICE_UNAVAILABLE {
                        return put;
                    }
                }
            })
        };
        lock.close().await.unwrap();
        assert_eq!(newer.await.unwrap().status, 201);
        // Behind those that were given up.
        assert_eq!(one.put(&policy("last"), "{}").await.status, 201);
        assert_eq!(one.get(P).await.body, "{\"new\":1}");
        assert_eq!(one.position().await.0, 2);
        one.stop().await;
        two.stop().await;
    })
    .await;
}

/// Ends a connection, and waits until the server has noticed.
async fn leave(mut client: TcpStream) {
    client.shutdown().await.unwrap();
    let mut rest = Vec::new();
    // A reset is as good.
    let _ended = tokio::time::timeout(Duration::from_secs(60), client.read_to_end(&mut rest))
        .await
        .unwrap();
    assert_eq!(rest, b"", "it was answered before it was given up");
}
