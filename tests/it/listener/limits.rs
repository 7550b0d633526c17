//! What clients may hold and for how long, and the places where they can knock.
use std::os::unix::fs::PermissionsExt;

use beamline_sidecar::store::Level;
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::support::{Heir, QUICK, Say, Scripted, Sidecar, eventually, until_closed};

/// What comes until the server closes. A reset ends a connection as well as an end does.
async fn answer(address: std::net::SocketAddr, bytes: &str) -> String {
    until_closed(address, bytes).await.0
}

#[tokio::test]
async fn who_stops_talking_is_hung_up_on() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(
        &heir.url(),
        "limits: {read_timeout_ms: 3000, idle_timeout_ms: 4000}",
    );
    sidecar.wait_for("live").await;
    let head = "PUT /api/v1/policies/acme/chat HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n";
    let (half_a_head, half_a_body, nothing, idle) = tokio::join!(
        answer(sidecar.data, "GET /health HTTP/1.1\r\nhos"),
        answer(sidecar.data, head),
        answer(sidecar.data, ""),
        answer(sidecar.data, "GET /health HTTP/1.1\r\nhost: a\r\n\r\n"),
    );
    assert_eq!(half_a_head, "");
    assert!(
        half_a_body.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{half_a_body}"
    );
    assert!(
        half_a_body.contains("\"code\":\"request_timeout\""),
        "{half_a_body}"
    );
    assert_eq!(nothing, "");
    assert!(idle.starts_with("HTTP/1.1 200 OK\r\n"), "{idle}");
    eventually("nothing is held open", || async {
        let open = sidecar
            .metric("beamline_sidecar_connections{listener=\"data\"}")
            .await;
        open.abs() < 0.5
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn more_than_may_wait_for_heir_are_refused_and_lookups_go_on() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    heir.on("GET /slow", Say::Silence);
    heir.on("GET /api/v1/policies/acme/chat ", Say::Json(200, "", "{}".into()));
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 20000}}\nlimits: {{max_waiting_requests: 2}}\nrefresh: {{interval_ms: 3600000}}",
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    assert_eq!(client.policy("acme/chat").await.status, StatusCode::OK);
    let slow: Vec<_> = (0..2)
        .map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.get("/slow").await })
        })
        .collect();
    eventually("two wait", || async {
        sidecar.metric("beamline_sidecar_waiting_requests").await == 2.0
    })
    .await;
    for path in [
        "/slow",
        "/other",
        "/api/v1/policies/acme/unknown",
        "/api/v1/policies/acme",
    ] {
        let refused = client.get(path).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "overloaded"),
            "{path}"
        );
        assert_eq!(refused.header("retry-after"), "1");
    }
    assert_eq!(client.policy("acme/chat").await.status, StatusCode::OK);
    assert_eq!(client.get("/health").await.status, StatusCode::OK);
    assert_eq!(
        sidecar
            .metric("beamline_sidecar_errors_total{code=\"overloaded\"}")
            .await,
        4.0
    );
    // Who goes makes room.
    for waiting in slow {
        waiting.abort();
    }
    eventually("nobody waits", || async {
        sidecar.metric("beamline_sidecar_waiting_requests").await == 0.0
    })
    .await;
    assert_eq!(client.policy("acme/unknown").await.code(), "not_found");
    sidecar.stop().await;
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_that_ends() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "limits: {max_connections: 2}");
    sidecar.wait_for("live").await;
    let first = TcpStream::connect(sidecar.data).await.unwrap();
    let _second = TcpStream::connect(sidecar.data).await.unwrap();
    let series = "beamline_sidecar_connections{listener=\"data\"}";
    eventually("both are taken", || async { sidecar.metric(series).await == 2.0 }).await;
    let third = tokio::spawn(answer(
        sidecar.data,
        "GET /health HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n",
    ));
    // The admin listener has a limit of its own, so a probe gets through, and the third is not among the two.
    for _ in 0..10 {
        assert_eq!(sidecar.metric(series).await, 2.0);
        assert!(!third.is_finished());
    }
    drop(first);
    assert!(third.await.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_unix_socket_is_a_listener_like_any_other() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("s.sock");
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{\"a\":1}").await;
    let sidecar = Sidecar::try_start(&format!(
        "listen: ['127.0.0.1:0', 'unix:{}']\nunix_mode: '600'\nadmin: {{listen: '127.0.0.1:0'}}\nheir: {{url: '{}'}}\nshutdown: {{lame_duck_ms: 0}}",
        socket.display(),
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    assert_eq!(
        std::fs::metadata(&socket).unwrap().permissions().mode() & 0o777,
        0o600
    );
    let mut stream = UnixStream::connect(&socket).await.unwrap();
    let request = "GET /api/v1/policies/acme/chat HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 200 OK\r\n") && answer.ends_with("{\"a\":1}"),
        "{answer}"
    );
    assert_eq!(sidecar.client().policy("acme/chat").await.text(), "{\"a\":1}");
    sidecar.stop().await;
    assert!(!socket.exists());
}
