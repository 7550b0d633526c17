//! What clients may hold and for how long, and the places where they can knock.
use std::os::unix::fs::PermissionsExt;

use beamline_sidecar::store::Level;
use http::StatusCode;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UnixStream},
};

use crate::support::{
    Heir, QUICK, Say, Scripted, Sidecar, connect_from, eventually, read_until, send, until_closed,
};

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
    heir.on("GET /api/v1/policies/slow ", Say::Silence);
    heir.on("GET /api/v1/policies/acme/chat ", Say::Json(200, "", "{}".into()));
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 20000}}\nlimits: {{max_waiting_requests: 2}}\nrefresh: {{interval_ms: 3600000}}",
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    assert_eq!(client.policy("acme/chat").await.status, StatusCode::OK);
    let mut slow = Vec::new();
    // Half of the places are for what is forwarded.
    for (path, waiting) in [("/slow", 1.0), ("/api/v1/policies/slow", 2.0)] {
        let client = client.clone();
        slow.push(tokio::spawn(async move { client.get(path).await }));
        eventually("one more waits", || async {
            sidecar.metric("beamline_sidecar_waiting_requests").await == waiting
        })
        .await;
        assert_eq!(sidecar.client().get("/other").await.code(), "overloaded");
    }
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
        6.0
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
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    heir.on("GET /slow", Say::Silence);
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 20000}}\nlimits: {{max_connections: 2}}",
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    let slow = "GET /slow HTTP/1.1\r\nhost: a\r\n\r\n";
    let (first, _second) = (send(sidecar.data, slow).await, send(sidecar.data, slow).await);
    let series = "beamline_sidecar_connections{listener=\"data\"}";
    eventually("both are busy", || async { heir.count("GET /slow") == 2 }).await;
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
async fn where_all_connections_are_taken_the_idlest_makes_room() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "limits: {max_connections: 3}");
    sidecar.wait_for("live").await;
    let health = "GET /health HTTP/1.1\r\nhost: a\r\n\r\n";
    let mut used = send(sidecar.data, health).await;
    read_until(&mut used, "}").await;
    // One that has not said anything, and one that stopped in the middle of a head.
    let mut silent = send(sidecar.data, "").await;
    let _half = send(sidecar.data, "GET /hea").await;
    let series = "beamline_sidecar_connections{listener=\"data\"}";
    eventually("all are taken", || async { sidecar.metric(series).await == 3.0 }).await;
    // The first of all, but the last that was used.
    used.write_all(health.as_bytes()).await.unwrap();
    read_until(&mut used, "}").await;
    let mut fourth = send(sidecar.data, health).await;
    assert!(
        read_until(&mut fourth, "}")
            .await
            .starts_with("HTTP/1.1 200 OK\r\n")
    );
    let end = silent.read(&mut [0; 1]).await;
    assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    used.write_all(health.as_bytes()).await.unwrap();
    read_until(&mut used, "}").await;
    sidecar.stop().await;
}

#[tokio::test]
async fn probes_are_answered_however_many_connections_the_admin_listener_has() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let probe = "GET /live HTTP/1.1\r\nhost: a\r\n\r\n";
    let half = "GET /live HTTP/1.1\r\n";
    let body = "POST /admin/log HTTP/1.1\r\nhost: localhost\r\ncontent-length: 4000\r\n\r\ninfo";
    let mut open = Vec::new();
    // More than there may be, of each kind: used and kept, never used, stopped in the head, stopped in the body.
    for bytes in [probe, "", half, body] {
        for _ in 0..260 {
            let mut stream = send(sidecar.admin, bytes).await;
            if bytes == probe {
                read_until(&mut stream, "\r\n\r\n").await;
            }
            open.push(stream);
        }
        for path in ["/live", "/ready", "/metrics"] {
            let request = format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n");
            let answer = answer(sidecar.admin, &request).await;
            assert!(
                answer.starts_with("HTTP/1.1 200 OK\r\n"),
                "{bytes:?} {path} {answer}"
            );
        }
    }
    drop(open);
    sidecar.stop().await;
}

#[tokio::test]
async fn bodies_that_are_on_their_way_hold_no_place_of_others() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "limits: {max_waiting_requests: 2}");
    sidecar.wait_for("live").await;
    let mut slow = Vec::new();
    for path in ["/api/v1/policies/acme/chat", "/api/v1/extensions/e1"] {
        for _ in 0..3 {
            let head = format!(
                "PUT {path} HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 9000\r\n\r\n"
            );
            let mut stream = send(sidecar.data, &head).await;
            read_until(&mut stream, "100 Continue\r\n\r\n").await;
            stream.write_all(b"{").await.unwrap();
            slow.push(stream);
        }
    }
    assert_eq!(sidecar.metric("beamline_sidecar_waiting_requests").await, 0.0);
    let client = sidecar.client();
    assert_eq!(
        client.put_policy("acme/chat", "{}").await.status,
        StatusCode::CREATED
    );
    assert_eq!(client.get("/api/v1/policies/acme").await.status, StatusCode::OK);
    assert_eq!(client.get("/api/v1/extensions").await.status, StatusCode::OK);
    drop(slow);
    sidecar.stop().await;
}

const BUFFERED: &str = "beamline_sidecar_buffered_bytes";

#[tokio::test]
async fn bodies_are_bounded_in_all_and_for_each_client() {
    let heir = Heir::start(Level::Changes).await;
    let limits = "limits: {max_buffered_bytes: 1048576, max_body_bytes: 400000, read_timeout_ms: 60000}";
    let sidecar = Sidecar::start(&heir.url(), limits);
    sidecar.wait_for("live").await;
    let begin = async |from: &str| {
        let mut stream = connect_from(from, sidecar.data).await;
        let head = "PUT /api/v1/policies/acme/chat HTTP/1.1\r\nhost: a\r\ncontent-length: 400000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        stream.write_all(&vec![b' '; 300_000]).await.unwrap();
        stream
    };
    let held = |bytes: f64| {
        let sidecar = &sidecar;
        eventually("the bodies are counted", move || async move {
            sidecar.metric(BUFFERED).await == bytes
        })
    };
    let refused = async |mut stream: TcpStream| {
        let answer = read_until(&mut stream, "\"context\":{}").await;
        assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
        assert!(
            answer.contains("\"code\":\"overloaded\"") && answer.contains("retry-after: 1\r\n"),
            "{answer}"
        );
    };
    let first = begin("127.0.0.1").await;
    held(300_000.0).await;
    refused(begin("127.0.0.1").await).await;
    let _second = begin("127.0.0.2").await;
    held(600_000.0).await;
    let _third = begin("127.0.0.3").await;
    held(900_000.0).await;
    refused(begin("127.0.0.4").await).await;
    // A small body is never in the way.
    let client = sidecar.client();
    assert_eq!(
        client.put_policy("acme/small", "{}").await.status,
        StatusCode::CREATED
    );
    drop(first);
    held(600_000.0).await;
    let put = client
        .put_policy("acme/chat", format!("{{\"a\":\"{}\"}}", "x".repeat(300_000)))
        .await;
    assert_eq!(put.status, StatusCode::CREATED);
    held(600_000.0).await;
    sidecar.stop().await;
}

#[tokio::test]
async fn writes_that_go_on_without_their_callers_keep_their_places_and_their_memory() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    heir.on("PUT /", Say::Silence);
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 20000}}\nlimits: {{max_waiting_requests: 6}}",
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    let body = format!("{{\"a\":\"{}\"}}", "x".repeat(100_000));
    let mut callers = Vec::new();
    for index in 0..3 {
        let put = format!(
            "PUT /api/v1/policies/acme/p{index} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        callers.push(send(sidecar.data, &put).await);
    }
    eventually("HEIR has them", || async { heir.count("PUT /") == 3 }).await;
    drop(callers);
    eventually("the callers have gone", || async {
        sidecar
            .metric("beamline_sidecar_connections{listener=\"data\"}")
            .await
            == 0.0
    })
    .await;
    assert_eq!(sidecar.metric("beamline_sidecar_waiting_requests").await, 3.0);
    assert_eq!(sidecar.metric(BUFFERED).await, 3.0 * body.len() as f64);
    let refused = sidecar.client().put_policy("acme/p4", "{}").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (503, "overloaded".into())
    );
    let other = "PUT /api/v1/policies/beta/p HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\n\r\n{}";
    let _other = send(sidecar.data, other).await;
    eventually("another tenant has a place", || async {
        heir.count("PUT /") == 4
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_list_holds_its_memory_and_its_place_until_it_is_read_or_given_up() {
    let heir = Heir::start(Level::Changes).await;
    let document = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    for index in 0..12 {
        let put = heir
            .client()
            .put_policy(&format!("acme/p{index}"), document.clone())
            .await;
        assert_eq!(put.status, StatusCode::CREATED);
    }
    // One list fits into what one client may have, and two into what all may.
    let limits = "limits: {max_buffered_bytes: 30000000, read_timeout_ms: 2000}";
    let sidecar = Sidecar::start(&heir.url(), limits);
    sidecar.wait_for("live").await;
    let ask = async |from: &str| {
        let mut stream = connect_from(from, sidecar.data).await;
        let request = "GET /api/v1/policies/acme HTTP/1.1\r\nhost: a\r\n\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut first = [0; 12];
        stream.read_exact(&mut first).await.unwrap();
        (stream, String::from_utf8_lossy(&first[9..]).into_owned())
    };
    let (mut reader, status) = ask("127.0.0.1").await;
    assert_eq!(status, "200");
    assert!(sidecar.metric(BUFFERED).await > 12_000_000.0);
    let (_, status) = ask("127.0.0.1").await;
    assert_eq!(status, "503", "one client has as much as it may");
    let (_idle, status) = ask("127.0.0.2").await;
    assert_eq!(status, "200");
    let (_, status) = ask("127.0.0.3").await;
    assert_eq!(status, "503", "all clients have as much as they may");
    assert_eq!(sidecar.metric("beamline_sidecar_waiting_requests").await, 2.0);
    // The one that reads gets all of it; the one that does not is hung up on.
    let mut read = Vec::new();
    while !read.ends_with(b"]}") {
        assert_ne!(reader.read_buf(&mut read).await.unwrap(), 0);
    }
    assert!(read.len() > 12_000_000);
    eventually("nothing is held", || async {
        sidecar.metric("beamline_sidecar_waiting_requests").await == 0.0
            && sidecar.metric(BUFFERED).await == 0.0
    })
    .await;
    sidecar.stop().await;
}

/// Bytes that the kernel has of what was sent to a client, which has not taken them.
#[expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that called it"
)]
fn unread(client: &TcpStream) -> u64 {
    let port = |address: std::net::SocketAddr| format!(":{:04X}", address.port());
    let (ours, theirs) = (
        port(client.peer_addr().unwrap()),
        port(client.local_addr().unwrap()),
    );
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let line = table.lines().find(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields[1].ends_with(&ours) && fields[2].ends_with(&theirs)
    });
    let queues = line.unwrap().split_whitespace().nth(4).unwrap();
    u64::from_str_radix(queues.split(':').next().unwrap(), 16).unwrap()
}

#[tokio::test]
async fn the_kernel_keeps_little_for_a_client_that_does_not_read() {
    let heir = Heir::start(Level::Changes).await;
    let document = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
    for index in 0..12 {
        heir.client()
            .put_policy(&format!("acme/p{index}"), document.clone())
            .await;
    }
    let sidecar = Sidecar::start(&heir.url(), "limits: {read_timeout_ms: 60000}");
    sidecar.wait_for("live").await;
    let client = send(
        sidecar.data,
        "GET /api/v1/policies/acme HTTP/1.1\r\nhost: a\r\n\r\n",
    )
    .await;
    let mut before = 0;
    let mut largest = 0;
    // Until it takes no more.
    while largest == 0 || before != largest {
        before = largest;
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        largest = largest.max(unread(&client));
    }
    assert!(largest < 512 << 10, "{largest} bytes");
    drop(client);
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

#[tokio::test]
async fn a_client_that_ends_its_connection_is_not_counted_as_one_that_sent_nonsense() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let counted = async |code: &str| {
        sidecar
            .metric(&format!("beamline_sidecar_errors_total{{code=\"{code}\"}}"))
            .await
    };
    let head = "PUT /api/v1/policies/acme/chat HTTP/1.1\r\nhost: a\r\n";
    for (turn, unfinished) in [
        "content-length: 100\r\n\r\n{\"a\"",
        "transfer-encoding: chunked\r\n\r\n5\r\n{\"a",
    ]
    .into_iter()
    .enumerate()
    {
        drop(send(sidecar.data, &format!("{head}{unfinished}")).await);
        eventually("it is counted", || async {
            counted("client_closed_request").await == (turn + 1) as f64
        })
        .await;
    }
    assert_eq!(counted("invalid_request").await, 0.0);
    // One that stays and does not frame its body as it should did send nonsense.
    let answer = crate::support::raw(
        sidecar.data,
        format!("{head}transfer-encoding: chunked\r\n\r\nzz\r\n{{}}\r\n0\r\n\r\n"),
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    eventually("it is counted", || async {
        counted("invalid_request").await == 1.0
    })
    .await;
    assert_eq!(counted("client_closed_request").await, 2.0);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_client_that_still_sends_what_was_refused_gets_its_answer_and_no_reset() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "limits: {max_body_bytes: 100000}");
    sidecar.wait_for("live").await;
    let path = "/api/v1/policies/acme/chat";
    let part = vec![b'x'; 1 << 20];
    for (head, framed) in [
        ("content-length: 16777216".to_owned(), part.clone()),
        (
            "transfer-encoding: chunked".to_owned(),
            [format!("{:x}\r\n", part.len()).as_bytes(), &part, b"\r\n"].concat(),
        ),
    ] {
        let mut client = send(
            sidecar.data,
            &format!("PUT {path} HTTP/1.1\r\nhost: a\r\n{head}\r\n\r\n"),
        )
        .await;
        client.write_all(&framed).await.unwrap();
        // It goes on only after the answer has come, which it does not read before all is sent.
        let mut first = [0];
        assert_eq!(client.peek(&mut first).await.unwrap(), 1, "{head}");
        for _ in 1..16 {
            client.write_all(&framed).await.unwrap();
        }
        client.shutdown().await.unwrap();
        let mut answer = String::new();
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 413 "), "{head}: {answer}");
    }
    sidecar.stop().await;
}
