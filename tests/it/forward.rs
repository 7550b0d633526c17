//! Every path that is not the policies': to HEIR as it came, and back as it was given.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{net::SocketAddr, sync::Arc};

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::SetOnce,
    task::JoinSet,
};

use crate::support::{Heir, QUICK, Say, Scripted, Sidecar, eventually, raw, send};

#[tokio::test]
async fn a_request_and_its_answer_cross_unchanged_but_for_what_is_of_one_hop() {
    let heir = Scripted::start().await;
    heir.on(
        "POST /anything",
        Say::Json(
            418,
            "connection: keep-alive, x-their-hop\r\nx-their-hop: 1\r\nkeep-alive: timeout=5\r\n\
             upgrade: h2c\r\nproxy-authenticate: Basic\r\nset-cookie: a\r\nset-cookie: b\r\netag: W/\"x\"\r\n",
            "{ \"teapot\" :true}".into(),
        ),
    );
    let sidecar = Sidecar::start(&heir.url(), "");
    let answer = sidecar
        .client()
        .send(
            Method::POST,
            "/anything/%41~b/x=1?b=2&a=%20%2F&&c",
            &[
                ("connection", "x-our-hop, te"),
                ("x-our-hop", "secret"),
                ("te", "trailers"),
                ("keep-alive", "timeout=9"),
                ("proxy-authorization", "Basic x"),
                ("x-tenant-id", "acme"),
                ("authorization", "Bearer client"),
                ("traceparent", "00-1-2-01"),
                ("x-twice", "1"),
                ("x-twice", "2"),
            ],
            "body",
        )
        .await
        .unwrap();
    assert_eq!(answer.status.as_u16(), 418);
    assert_eq!(answer.text(), "{ \"teapot\" :true}");
    assert_eq!(answer.header("etag"), "W/\"x\"");
    let cookies: Vec<_> = answer.headers.get_all("set-cookie").iter().collect();
    assert_eq!(cookies, ["a", "b"]);
    for hop in [
        "x-their-hop",
        "keep-alive",
        "upgrade",
        "proxy-authenticate",
        "connection",
    ] {
        assert_eq!(answer.header(hop), "", "{hop}");
    }
    let requests = heir.requests();
    let head = requests.iter().find(|head| head.starts_with("POST")).unwrap();
    let mut lines: Vec<&str> = head.trim_end().lines().collect();
    assert_eq!(
        lines.remove(0),
        "POST /anything/%41~b/x=1?b=2&a=%20%2F&&c HTTP/1.1"
    );
    let via = lines
        .iter()
        .position(|line| line.starts_with("via: 1.1 beamline-sidecar-"))
        .unwrap();
    lines.remove(via);
    lines.sort_unstable();
    let host = format!("host: {}", heir.address);
    assert_eq!(
        lines,
        [
            "authorization: Bearer client",
            "content-length: 4",
            &host,
            "traceparent: 00-1-2-01",
            "x-tenant-id: acme",
            "x-twice: 1",
            "x-twice: 2",
        ]
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn bodies_cross_in_both_directions() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    let record = format!(
        "{{\"id\":\"e1\",\"type\":\"pre\",\"subject\":\"s\",\"note\":\"{}\"}}",
        "x".repeat(200_000)
    );
    let put = sidecar
        .client()
        .put("/api/v1/extensions/e1", record.clone())
        .await;
    assert_eq!(put.status, StatusCode::CREATED, "{}", put.text());
    assert_eq!(
        heir.client().get("/api/v1/extensions/e1").await.body,
        record.as_bytes()
    );
    let through = sidecar.client().get("/api/v1/extensions/e1").await;
    assert_eq!(
        (through.status, &through.body[..]),
        (StatusCode::OK, record.as_bytes())
    );
    let head = sidecar
        .client()
        .send(Method::HEAD, "/api/v1/extensions/e1", &[], "")
        .await
        .unwrap();
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-length"), record.len().to_string());
    let missing = sidecar.client().get("/api/v1/extensions/none").await;
    assert_eq!(missing.status, StatusCode::NOT_FOUND);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_heir_that_is_away_slow_or_resting_is_named_in_our_own_error() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.gone().await;
    let sidecar = Sidecar::try_start(&format!(
        "{}heir: {{url: '{}', health_interval_ms: 3600000, breaker: {{failure_threshold: 2, open_ms: 60000}}, retry: {{max_attempts: 1}}}}\nrefresh: {{interval_ms: 3600000}}",
        crate::support::QUICK,
        heir.url()
    ))
    .unwrap();
    let client = sidecar.client();
    let mut codes = Vec::new();
    for _ in 0..5 {
        let answer = client.get("/api/v1/extensions").await;
        assert_eq!(answer.header("content-type"), "application/json");
        assert_eq!(answer.json()["ok"], false);
        assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
        codes.push((answer.status.as_u16(), answer.code()));
    }
    // Unreachable until the breaker opens, which the refresh may have helped with; then it is left alone. To the client
    // both are the same.
    for code in &codes {
        assert_eq!(*code, (502, "heir_error".into()));
    }
    assert_eq!(sidecar.metric("beamline_sidecar_heir_breaker_state").await, 1.0);
    sidecar.stop().await;

    let silent = Scripted::start().await;
    silent.on("GET /slow", Say::Silence);
    silent.on("GET /broken", Say::Bytes(b"HTTP/1.1 nonsense\r\n\r\n".to_vec()));
    silent.on("GET /gone", Say::Bytes(Vec::new()));
    let sidecar = Sidecar::try_start(&format!(
        "{}heir: {{url: '{}', timeout_ms: 300, breaker: {{failure_threshold: 1000}}}}",
        crate::support::QUICK,
        silent.url()
    ))
    .unwrap();
    for (path, status, code) in [
        ("/slow", 504, "heir_timeout"),
        ("/broken", 502, "heir_error"),
        ("/gone", 502, "heir_error"),
    ] {
        let answer = sidecar.client().get(path).await;
        assert_eq!(
            (answer.status.as_u16(), answer.code().as_str()),
            (status, code),
            "{path}"
        );
        assert_eq!(answer.header("retry-after"), "1", "{path}");
    }
    sidecar.stop().await;
}

/// Passes bytes on to an address that is set later, as a load balancer in front of everything does.
async fn relay(to: Arc<SetOnce<SocketAddr>>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let to = to.clone();
            tokio::spawn(async move {
                let to = to.wait().await;
                let mut server = TcpStream::connect(to).await.unwrap();
                let _ended = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn a_request_that_leads_back_here_is_stopped_at_its_second_visit() {
    let own = Arc::new(SetOnce::new());
    let balancer = relay(own.clone()).await;
    let sidecar = Sidecar::start(&format!("http://{balancer}"), "");
    // Asked before the balancer leads anywhere: once it does, the sidecar's own questions come back as well, and it
    // lets the HEIR that it takes itself for rest.
    let client = sidecar.client();
    let asking = tokio::spawn(async move { client.get("/api/v1/anything").await });
    eventually("the request is on its way", || async {
        sidecar.metric("beamline_sidecar_waiting_requests").await == 1.0
    })
    .await;
    own.set(sidecar.data).unwrap();
    let answer = asking.await.unwrap();
    assert_eq!(answer.status, StatusCode::LOOP_DETECTED);
    assert_eq!(answer.code(), "loop_detected");
    // Other proxies' marks are none of ours.
    let heir = Scripted::start().await;
    heir.on("GET /x", Say::Json(200, "", "{}".into()));
    let other = Sidecar::start(&heir.url(), "");
    let via = [("via", "1.1 proxy, 1.1 beamline-sidecar-00000000")];
    assert_eq!(other.client().get_with("/x", &via).await.status, StatusCode::OK);
    let requests = heir.requests();
    let head = requests.iter().find(|head| head.starts_with("GET /x")).unwrap();
    assert!(
        head.contains("via: 1.1 proxy, 1.1 beamline-sidecar-00000000\r\n"),
        "{head}"
    );
    other.stop().await;
    sidecar.stop().await;
}

#[tokio::test]
async fn methods_that_are_for_proxies_are_not_passed_on() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    for request in [
        "TRACE /api/v1/x HTTP/1.1\r\nhost: a\r\n\r\n",
        "CONNECT /api/v1/x HTTP/1.1\r\nhost: a\r\n\r\n",
    ] {
        let answer = raw(sidecar.data, request).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{request} {answer}");
    }
    let answer = raw(sidecar.data, "CONNECT heir:80 HTTP/1.1\r\nhost: heir:80\r\n\r\n").await;
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!((heir.count("TRACE"), heir.count("CONNECT")), (0, 0));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_policy_path_takes_its_own_methods_only_and_they_are_named() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    for (method, path, allow) in [
        (
            Method::POST,
            "/api/v1/policies/acme/chat",
            "GET, HEAD, PUT, DELETE",
        ),
        (
            Method::OPTIONS,
            "/api/v1/policies/acme/chat",
            "GET, HEAD, PUT, DELETE",
        ),
        (Method::DELETE, "/api/v1/policies/acme", "GET, HEAD"),
        (Method::PUT, "/health", "GET, HEAD"),
    ] {
        let answer = sidecar
            .client()
            .send(method.clone(), path, &[], "{}")
            .await
            .unwrap();
        assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{method} {path}");
        assert_eq!(
            (answer.code().as_str(), answer.header("allow")),
            ("method_not_allowed", allow)
        );
    }
    assert_eq!(
        heir.count("POST") + heir.count("OPTIONS") + heir.count("DELETE"),
        0
    );
    sidecar.stop().await;
}

/// A sidecar whose breaker opens at the first failure and stays open.
fn start_touchy(heir: &str, more: &str) -> Sidecar {
    Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{heir}', timeout_ms: 1000, health_interval_ms: 3600000, \
         breaker: {{failure_threshold: 1, open_ms: 3600000}}, retry: {{max_attempts: 1}}}}\n{more}"
    ))
    .unwrap()
}

async fn is_left_alone(sidecar: &Sidecar) -> bool {
    sidecar.metric("beamline_sidecar_heir_breaker_state").await != 0.0
}

#[tokio::test]
async fn no_client_can_open_the_breaker_of_heir_by_breaking_off_or_dribbling_its_upload() {
    let heir = Heir::start(Level::Changes).await;
    let sidecar = start_touchy(&heir.url(), "limits: {read_timeout_ms: 1000}");
    sidecar.wait_for("live").await;
    for path in ["/api/v1/extensions/e1", "/api/v1/policies/acme/chat"] {
        let told = format!(
            "PUT {path} HTTP/1.1\r\nhost: a\r\ncontent-length: 50000\r\nexpect: 100-continue\r\n\r\n"
        );
        let chunked = format!(
            "PUT {path} HTTP/1.1\r\nhost: a\r\ntransfer-encoding: chunked\r\nexpect: 100-continue\r\n\r\n"
        );
        let mut dribbling = Vec::new();
        for (head, beginning) in [(&told, "{\"id\":"), (&chunked, "5\r\n{\"id\"\r\n")] {
            for _ in 0..6 {
                let mut stream = send(sidecar.data, head).await;
                // The body is asked for, so it is being read when it breaks off.
                stream.read_exact(&mut [0; 25]).await.unwrap();
                stream.write_all(beginning.as_bytes()).await.unwrap();
            }
            dribbling.push(send(sidecar.data, &format!("{head}{beginning}")).await);
        }
        for mut stream in dribbling {
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await.unwrap();
            assert!(answer.contains("HTTP/1.1 408 "), "{answer}");
        }
    }
    eventually("all have gone", || async {
        sidecar
            .metric("beamline_sidecar_connections{listener=\"data\"}")
            .await
            == 0.0
    })
    .await;
    assert!(!is_left_alone(&sidecar).await);
    let put = sidecar.client().put_policy("acme/chat", "{\"a\":1}").await;
    assert_eq!(
        (put.status, put.header("x-beamline-write")),
        (StatusCode::CREATED, "")
    );
    assert_eq!(
        sidecar.client().get("/api/v1/extensions").await.status,
        StatusCode::OK
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn what_a_client_asks_heir_for_does_not_open_the_breaker() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    heir.on("GET /broken", Say::Json(500, "", "{}".into()));
    heir.on("GET /busy", Say::Json(429, "retry-after: 3600\r\n", "{}".into()));
    heir.on("GET /cut", Say::Bytes(Vec::new()));
    heir.on("GET /slow", Say::Silence);
    heir.on(
        "GET /api/v1/policies/acme/chat ",
        Say::Json(200, "", "{\"a\":1}".into()),
    );
    let sidecar = start_touchy(&heir.url(), "refresh: {interval_ms: 3600000}");
    let client = sidecar.client();
    for (path, status) in [("/broken", 500), ("/busy", 429), ("/cut", 502), ("/slow", 504)] {
        let answer = client.get(path).await;
        assert_eq!(answer.status.as_u16(), status, "{path}");
        assert!(!is_left_alone(&sidecar).await, "{path}");
    }
    assert_eq!(client.policy("acme/chat").await.text(), "{\"a\":1}");
    sidecar.stop().await;
}

#[tokio::test]
async fn long_polls_of_clients_are_given_the_time_that_they_ask_for() {
    let heir = Heir::start(Level::Changes).await;
    let put = heir.client().put_policy("acme/chat", "{\"a\":1}").await;
    let revision = put.header("x-heir-revision").to_owned();
    let sidecar = start_touchy(&heir.url(), "");
    sidecar.wait_for("live").await;
    // Longer than HEIR has for any other answer.
    let path = format!("/api/v1/changes?since={revision}&wait_ms=2500");
    let mut polls = JoinSet::new();
    for _ in 0..5 {
        let (client, path) = (sidecar.client(), path.clone());
        polls.spawn(async move { client.get(&path).await });
    }
    for answer in polls.join_all().await {
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
        assert_eq!(answer.json()["changes"], serde_json::json!([]));
    }
    assert!(!is_left_alone(&sidecar).await);
    let observed = "beamline_sidecar_heir_request_duration_seconds_count{call=\"forward\"}";
    assert_eq!(
        sidecar.metric(observed).await,
        0.0,
        "what waits says nothing about how quick HEIR is"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn clients_that_do_not_read_leave_heirs_connections_to_others() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n".to_vec();
    heir.on("GET /endless", Say::Endless(head, vec![b'x'; 100_000]));
    heir.on(
        "GET /api/v1/policies/acme/chat ",
        Say::Json(200, "", "{\"a\":1}".into()),
    );
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 1000, pool: {{max_requests: 6, max_idle: 1}}}}\n\
         refresh: {{interval_ms: 3600000}}",
        heir.url()
    ))
    .unwrap();
    let mut readers = Vec::new();
    for _ in 0..12 {
        readers.push(send(sidecar.data, "GET /endless HTTP/1.1\r\nhost: a\r\n\r\n").await);
    }
    eventually("the rest are refused", || async {
        sidecar
            .metric("beamline_sidecar_errors_total{code=\"overloaded\"}")
            .await
            == 9.0
    })
    .await;
    assert_eq!(
        heir.count("GET /endless"),
        3,
        "half of the connections are for forwarded requests"
    );
    assert_eq!(sidecar.metric("beamline_sidecar_waiting_requests").await, 3.0);
    // The other half is for what the sidecar asks itself.
    assert_eq!(sidecar.client().policy("acme/chat").await.text(), "{\"a\":1}");
    let refused = sidecar.client().get("/other").await;
    assert_eq!(
        (refused.status.as_u16(), refused.code()),
        (503, "overloaded".into())
    );
    // A client that goes makes room.
    readers.clear();
    eventually("nothing is held", || async {
        sidecar.metric("beamline_sidecar_waiting_requests").await == 0.0
    })
    .await;
    assert_eq!(sidecar.client().get("/other").await.status, StatusCode::NOT_FOUND);
    sidecar.stop().await;
}
