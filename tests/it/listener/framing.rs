//! Rows 7 to 10: where a request ends and the next begins.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{GOOD, get, start, statuses};
use crate::support::{Say, Scripted, Sidecar, chunked, converse, raw};

#[tokio::test]
async fn hostile_07_a_request_whose_length_is_in_doubt_ends_the_connection() {
    let (_heir, sidecar) = start().await;
    let head = "PUT /api/v1/policies/acme/chat HTTP/1.1\r\nhost: a\r\n";
    for (headers, status) in [
        // What follows is not in chunks.
        ("content-length: 2\r\ntransfer-encoding: chunked\r\n", "400"),
        ("transfer-encoding: chunked\r\ncontent-length: 2\r\n", "400"),
        ("transfer-encoding: chunked\r\n", "400"),
        ("transfer-encoding: gzip, chunked\r\n", "411"),
        ("transfer-encoding: chunked, chunked\r\n", "411"),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n",
            "400",
        ),
        (
            "transfer-encoding: chunked\r\ntransfer-encoding: identity\r\n",
            "400",
        ),
        ("transfer-encoding: xchunked\r\n", "400"),
        ("content-length: 2\r\ncontent-length: 3\r\n", "400"),
        ("content-length: 2, 2\r\n", "400"),
        ("content-length: +2\r\n", "400"),
        ("content-length: -2\r\n", "400"),
        ("content-length: 0x2\r\n", "400"),
        ("content-length: 2 2\r\n", "400"),
        ("content-length: 99999999999999999999999\r\n", "400"),
        // The largest number means "no length" inside hyper, which refuses it in its own way.
        ("content-length: 18446744073709551615\r\n", "431"),
        ("content-length: 1048577\r\n", "413"),
        ("content-length : 2\r\n", "400"),
        ("x: 1\r\n content-length: 2\r\n", "400"),
        ("x: 1\r\n\tfolded\r\ncontent-length: 2\r\n", "400"),
        ("x: a\0b\r\ncontent-length: 2\r\n", "400"),
        ("", "411"),
    ] {
        let chunks = "fffffffffffffffff1\r\n{}\r\n0\r\n\r\n";
        for body in ["{}", chunks] {
            let (answer, closed) = converse(sidecar.data, format!("{head}{headers}\r\n{body}{GOOD}")).await;
            assert_eq!(statuses(&answer), [status], "{headers:?} {answer}");
            assert!(closed, "{headers:?}");
        }
    }
    let untouched = sidecar.client().policy("acme/chat").await;
    assert_eq!(untouched.text(), "{\"of\":\"acme\"}");
    // Twice the same number is one number, and so it is passed on (RFC 9110, section 8.6).
    let twice = format!("{head}content-length: 2\r\ncontent-length: 2\r\n\r\n{{}}{GOOD}");
    let (answer, _) = converse(sidecar.data, twice).await;
    assert_eq!(statuses(&answer), ["200", "200"], "{answer}");
    assert!(answer.ends_with("\r\n\r\n{}"), "{answer}");
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_08_an_upgrade_opens_no_tunnel() {
    let heir = Scripted::start().await;
    heir.on("GET /plain", Say::Json(200, "", "{\"plain\":1}".into()));
    let switched =
        b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: x\r\n\r\nTUNNEL".to_vec();
    heir.on("GET /switch", Say::Bytes(switched));
    let sidecar = Sidecar::start(&heir.url(), "");
    let upgrade =
        |path: &str| format!("GET {path} HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: x\r\n\r\n");
    // The second request is a request and not the first bytes of a tunnel.
    let pipelined = format!("{}{}", upgrade("/plain"), get("/plain"));
    let answer = raw(sidecar.data, pipelined).await;
    assert_eq!(statuses(&answer), ["200", "200"], "{answer}");
    for head in heir
        .requests()
        .iter()
        .filter(|head| head.starts_with("GET /plain"))
    {
        assert!(!head.to_lowercase().contains("upgrade"), "{head}");
    }
    let pipelined = format!("{}{}", upgrade("/switch"), get("/plain"));
    let (answer, _) = converse(sidecar.data, pipelined).await;
    assert_eq!(statuses(&answer)[0], "502", "{answer}");
    assert!(!answer.contains("TUNNEL"), "{answer}");
    let lookups = format!("{}{}", upgrade("/api/v1/policies/acme/chat"), get("/health"));
    assert_eq!(statuses(&raw(sidecar.data, lookups).await).len(), 2);
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_09_a_body_that_ends_with_the_connection_is_refused() {
    let (_heir, sidecar) = start().await;
    for version in ["1.0", "1.1"] {
        for (method, path, status, code) in [
            ("PUT", "/api/v1/policies/acme/chat", 411, "length_required"),
            ("POST", "/api/v1/decide", 411, "length_required"),
            ("PATCH", "/api/v1/extensions/e", 411, "length_required"),
            // What the path does not take is said first.
            ("POST", "/api/v1/policies/acme/chat", 405, "method_not_allowed"),
            ("PATCH", "/api/v1/policies/acme/chat", 405, "method_not_allowed"),
        ] {
            let (answer, closed) = converse(
                sidecar.data,
                format!("{method} {path} HTTP/{version}\r\nhost: a\r\n\r\n{{\"x\":1}}{GOOD}"),
            )
            .await;
            assert_eq!(answer.matches("HTTP/1.").count(), 1, "{answer}");
            assert!(answer.contains(&format!(" {status} ")), "{answer}");
            assert!(answer.contains(&format!("\"code\":\"{code}\"")), "{answer}");
            assert!(closed);
        }
    }
    let old = raw(sidecar.data, "GET /api/v1/policies/acme/chat HTTP/1.0\r\n\r\n").await;
    assert!(old.starts_with("HTTP/1.0 200 OK\r\n"), "{old}");
    assert_eq!(
        sidecar.client().policy("acme/chat").await.text(),
        "{\"of\":\"acme\"}"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_10_a_body_nobody_reads_is_never_taken_for_a_request() {
    let (_heir, sidecar) = start().await;
    let smuggled = get("/api/v1/policies/acme/smuggled");
    // Answered at once, from memory: the body, a request by its looks, has not been read.
    for path in ["/api/v1/policies/acme/chat", "/health"] {
        let (answer, closed) = converse(
            sidecar.data,
            format!(
                "GET {path} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{smuggled}{}",
                smuggled.len(),
                get("/health"),
            ),
        )
        .await;
        let seen = statuses(&answer);
        assert!(
            seen == ["200", "200"] || (seen == ["200"] && closed),
            "{path} {answer}"
        );
    }
    // A body that is announced and does not arrive delays no other request and leaves nothing open.
    let mut slow = TcpStream::connect(sidecar.data).await.unwrap();
    slow.write_all(b"GET /health HTTP/1.1\r\nhost: a\r\ncontent-length: 1000000\r\n\r\nonly this")
        .await
        .unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).await.unwrap();
    assert_eq!(
        statuses(&answer),
        ["200"],
        "answered, then closed by the server: {answer}"
    );
    assert_eq!(
        sidecar
            .metric("beamline_sidecar_errors_total{code=\"not_found\"}")
            .await,
        0.0
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_body_in_chunks_is_taken_wherever_a_body_is_and_ends_the_connection() {
    let (heir, sidecar) = start().await;
    let policy = "{\"weights\":{\"a\":1.0}}";
    let decide = "{\"version\":\"1\",\"request_id\":\"r\",\"tenant_id\":\"acme\",\"policy_id\":\"new\",\
                  \"task\":{\"type\":\"chat\",\"payload\":{\"text\":\"hello there\"}}}";
    let result = "{\"version\":\"1\",\"tenant_id\":\"acme\",\"assignment_id\":\"1\",\"request_id\":\"r\",\
                  \"provider_id\":\"a\",\"status\":\"success\"}";
    let record = "{\"id\":\"e1\",\"type\":\"pre\",\"subject\":\"s\"}";
    let put = "/api/v1/policies/acme/new";
    for (method, path, more, body, status) in [
        ("PUT", put, "", policy, "201"),
        // A length beside the chunks is not used, whatever it says. The server cannot see it, so it trusts nothing after.
        ("PUT", put, "content-length: 3\r\n", policy, "200"),
        ("POST", "/api/v1/decide", "", decide, "200"),
        ("POST", "/api/v1/results", "", result, "202"),
        ("PUT", "/api/v1/extensions/e1", "", record, "201"),
        ("GET", put, "", "{}", "200"),
        ("DELETE", put, "", "", "204"),
    ] {
        for size in [1, 1_000] {
            let status = if size > 1 && status == "201" {
                "200"
            } else {
                status
            };
            let status = if size > 1 && method == "DELETE" {
                "404"
            } else {
                status
            };
            let request = format!("{}{GOOD}", chunked(method, path, more, body, size));
            let (answer, closed) = converse(sidecar.data, request).await;
            let seen = statuses(&answer);
            assert_eq!(seen, [status], "{method} {path} {more} {answer}");
            assert!(
                answer.to_lowercase().contains("connection: close\r\n"),
                "{answer}"
            );
            assert!(closed, "{method} {path}");
        }
    }
    assert_eq!(heir.client().get("/api/v1/extensions/e1").await.text(), record);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_body_in_chunks_has_the_same_limits() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    let sidecar = Sidecar::start(
        &heir.url(),
        "limits: {max_body_bytes: 2000, read_timeout_ms: 1000}",
    );
    for path in ["/api/v1/policies/acme/chat", "/api/v1/anything"] {
        for size in [100, 2001, 500_000] {
            let body = "x".repeat(size.max(2001));
            let request = format!("{}{GOOD}", chunked("PUT", path, "", &body, size));
            let (answer, closed) = converse(sidecar.data, request).await;
            assert_eq!(statuses(&answer), ["413"], "{path} {answer}");
            assert!(answer.contains("\"code\":\"payload_too_large\""), "{answer}");
            assert!(closed);
        }
        // Malformed, or never ended.
        let head = format!("PUT {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\n\r\n");
        for (body, status) in [
            ("2\r\n{}x\r\n0\r\n\r\n", "400"),
            ("-2\r\n{}\r\n0\r\n\r\n", "400"),
            (" 2\r\n{}\r\n0\r\n\r\n", "400"),
            ("0x2\r\n{}\r\n0\r\n\r\n", "400"),
            ("2\n{}\r\n0\r\n\r\n", "400"),
            ("ffffffffffffffff\r\n{}\r\n0\r\n\r\n", "408"),
            ("2\r\n{}\r\n", "408"),
        ] {
            let (answer, closed) = converse(sidecar.data, format!("{head}{body}")).await;
            assert_eq!(statuses(&answer), [status], "{path} {body:?} {answer}");
            assert!(closed, "{path} {body:?}");
        }
    }
    let seen = heir.requests();
    assert!(seen.iter().all(|head| head.starts_with("GET")), "{seen:?}");
    sidecar.stop().await;
}
