//! Clients that send slowly or do not read, and what the store keeps for them.

use std::time::Duration;

use beamline_sidecar::store::StoreConfig;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};

use super::{
    P, policy,
    running::{Running, config},
};
use crate::support::{connect_from, eventually, read_until, send};

/// Begins a large upload; the beginning of the answer to it, if that comes before its end.
async fn begin(store: &Running, from: &str) -> (TcpStream, Option<String>) {
    let mut stream = connect_from(from, store.address).await;
    let head = format!(
        "PUT /api/v1/modules/{} HTTP/1.1\r\nhost: a\r\ncontent-length: 400000\r\n\r\n",
        "0".repeat(64)
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    stream.write_all(&vec![0; 300_000]).await.unwrap();
    let answer = timeout(
        Duration::from_millis(500),
        read_until(&mut stream, "\"context\":{}"),
    );
    let answer = answer.await.ok();
    (stream, answer)
}

#[tokio::test]
async fn uploads_that_are_held_open_are_bounded() {
    let store = Running::start(StoreConfig {
        max_buffered_bytes: 1 << 20,
        ..config()
    })
    .await;
    let (first, answer) = begin(&store, "127.0.0.1").await;
    assert_eq!(answer, None);
    let refused = async |from| {
        let (_, answer) = begin(&store, from).await;
        answer.is_some_and(|answer| {
            answer.starts_with("HTTP/1.1 503 ")
                && answer.contains("\"code\":\"overloaded\"")
                && answer.contains("retry-after: 1\r\n")
        })
    };
    eventually("one client has as much as it may", || refused("127.0.0.1")).await;
    let mut others = Vec::new();
    for from in ["127.0.0.2", "127.0.0.3"] {
        let (other, answer) = begin(&store, from).await;
        assert_eq!(answer, None);
        others.push(other);
    }
    eventually("all have as much as they may", || refused("127.0.0.4")).await;
    // Small bodies are never in the way.
    assert_eq!(store.put(P, "{}").await.status, 201);
    drop((first, others));
    let large = format!("{{\"a\":\"{}\"}}", "x".repeat(300_000));
    eventually("the memory is given back", || async {
        store.put(P, large.clone()).await.status == 200
    })
    .await;
    store.stop().await;
}

#[tokio::test]
async fn answers_that_are_not_read_are_bounded_and_hung_up_on() {
    let mut config = StoreConfig {
        max_buffered_bytes: 30_000_000,
        ..config()
    };
    config.limits.header_timeout = Duration::from_secs(1);
    let store = Running::start(config).await;
    let document = format!("{{\"a\":\"{}\"}}", "x".repeat(700_000));
    for n in 0..12 {
        assert_eq!(store.put(&policy(n), document.clone()).await.status, 201);
    }
    let ask = async |from: &str, path: &str| {
        let mut stream = connect_from(from, store.address).await;
        let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        (stream, String::from_utf8_lossy(&first[9..]).into_owned())
    };
    for path in ["/api/v1/changes?since=0", "/api/v1/policies/acme"] {
        let mut unread = Vec::new();
        let mut refused = false;
        for _ in 0..4 {
            let (stream, status) = ask("127.0.0.1", path).await;
            refused |= status == "503";
            unread.push(stream);
        }
        assert!(refused, "one client has more than it may: {path}");
        eventually("those that do not read are hung up on", || async {
            ask("127.0.0.1", path).await.1 == "200"
        })
        .await;
        drop(unread);
        eventually("the memory is given back", || async {
            store.get(path).await.status == 200
        })
        .await;
    }
    store.stop().await;
}

#[tokio::test]
async fn a_body_that_trickles_comes_to_an_end() {
    let store = Running::start(StoreConfig {
        body_timeout: Duration::from_millis(500),
        ..config()
    })
    .await;
    let head = format!("PUT {P} HTTP/1.1\r\nhost: a\r\ncontent-length: 1000\r\n\r\n");
    let stream = send(store.address, &head).await;
    let (mut reads, mut writes) = stream.into_split();
    let trickle = tokio::spawn(async move {
        while writes.write_all(b" ").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
    let mut answer = Vec::new();
    let read = timeout(Duration::from_secs(30), async {
        // A reset ends it as well: the client goes on sending.
        while let Ok(1..) = reads.read_buf(&mut answer).await {}
    });
    read.await.unwrap();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("connection: close\r\n"), "{answer}");
    trickle.abort();
    store.stop().await;
}
