//! Rows 1 to 6 and 14: what a request names, and who it says it is from.

use beamline_sidecar::store::Level;
use http::StatusCode;

use super::{GOOD, get, refuses, start, statuses};
use crate::support::{Heir, Sidecar, converse, raw};

#[tokio::test]
async fn hostile_01_a_path_with_empty_segments_is_never_read_as_a_url() {
    refuses(&[
        "//api/v1/policies/acme/chat",
        "/api//v1/policies/acme/chat",
        "/api/v1/policies//chat",
        "/api/v1/policies/acme/chat/",
        "//evil.example/api/v1/policies/acme/chat",
        "http://evil.example/api/v1/policies/acme/chat",
        "*",
        "api/v1/policies/acme/chat",
    ])
    .await;
}

#[tokio::test]
async fn hostile_02_a_path_that_two_servers_could_read_differently_is_refused() {
    refuses(&[
        "/api/v1/policies/acme%2F..%2Fother/chat",
        "/api/v1/policies/../policies/acme/chat",
        "/api/v1/policies/acme/..",
        "/api/v1/policies/%2e%2e/chat",
        "/api/v1/policies/acme/%252e",
        "/api/v1/policies/acme/chat;x",
        "/api/v1/policies/acme/chat%3bx",
        "/api/v1/policies/acme/ch\\at",
        "/api/v1/policies/acme/ch%5cat",
        "/other/../api/v1/policies/acme/chat",
        "/other/%2e%2e/x",
    ])
    .await;
    // Escapes that hide nothing are the same key as the plain text.
    let (_heir, sidecar) = start().await;
    for path in ["/api/v1/policies/%61cme/ch%61t", "/%61pi/v1/policies/acme/chat"] {
        assert_eq!(sidecar.client().get(path).await.text(), "{\"of\":\"acme\"}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_03_escapes_of_what_means_something_elsewhere_are_refused() {
    refuses(&[
        "/api/v1/policies/acme/a%23b",
        "/api/v1/policies/acme/a%3Fb",
        "/api/v1/policies/acme/%",
        "/api/v1/policies/acme/a%4",
        "/api/v1/policies/acme/%zz",
        "/api/v1/policies/acme/%00",
        "/api/v1/policies/acme/a%0ab",
        "/api/v1/policies/acme/a%0d%0aX:%201",
        "/api/v1/policies/acme/%ff",
        "/other/%00",
    ])
    .await;
}

#[tokio::test]
async fn hostile_04_an_id_is_data_and_nothing_else() {
    let long = format!("/api/v1/policies/acme/{}", "p".repeat(256));
    refuses(&[
        "/api/v1/policies/acme/chat'--",
        "/api/v1/policies/acme/$(id)",
        "/api/v1/policies/acme/data.x[_]",
        "/api/v1/policies/acme/{{7*7}}",
        "/api/v1/policies/%C3%A9/chat",
        "/api/v1/policies/acme/a,b",
        "/api/v1/policies/acme/a=1&b=2",
        &long,
    ])
    .await;
    // What looks like code but keeps to the grammar is a name like any other.
    let (heir, sidecar) = start().await;
    for name in ["DROP-TABLE.policies/__proto__", "null/-1", "...x/.hidden"] {
        assert_eq!(sidecar.client().policy(name).await.code(), "not_found");
        sidecar.client().put_policy(name, "{\"x\":1}").await;
        assert_eq!(sidecar.client().policy(name).await.text(), "{\"x\":1}");
        assert_eq!(heir.client().policy(name).await.text(), "{\"x\":1}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_05_an_identity_given_twice_is_refused() {
    let (_heir, sidecar) = start().await;
    for headers in [
        "host: a\r\nhost: a\r\n",
        "host: a\r\nhost: b\r\n",
        "host: a, b\r\n",
        "host: a\r\nx-tenant-id: acme\r\nx-tenant-id: acme\r\n",
        "host: a\r\nX-Tenant-Id: acme\r\nx-tenant-ID: other\r\n",
        "host: a\r\nx-tenant-id: acme, other\r\n",
        "host: a\r\nx-tenant-id: \r\n",
        "host: a\r\nx-tenant-id: ../acme\r\n",
        "host: a\r\nauthorization: Bearer a\r\nauthorization: Bearer b\r\n",
        "host: a\r\nauthorization: Bearer a, Bearer b\r\n",
        "host: a\r\nauthorization: Bearer a\r\nAUTHORIZATION: Basic b\r\n",
    ] {
        for path in ["/api/v1/policies/acme/chat", "/health", "/other"] {
            let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n{GOOD}");
            let (answer, closed) = converse(sidecar.data, request).await;
            assert_eq!(statuses(&answer), ["400"], "{headers:?} {answer}");
            assert!(answer.contains("\"code\":\"invalid_request\""), "{answer}");
            assert!(closed, "{headers:?}");
        }
    }
    let one = "host: a\r\nx-tenant-id: acme\r\nauthorization: Bearer a\r\naccept: b\r\naccept: c\r\n";
    let answer = raw(
        sidecar.data,
        format!("GET /api/v1/policies/acme/chat HTTP/1.1\r\n{one}\r\n"),
    )
    .await;
    assert_eq!(statuses(&answer), ["200"]);
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_06_only_the_exact_paths_are_open() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "s3cret").unwrap();
    let heir = Heir::start(Level::Changes).await;
    let sidecar = Sidecar::try_start(&format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0', token_file: {}}}\nheir: {{url: '{}'}}\nshutdown: {{lame_duck_ms: 0}}",
        token.display(),
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    // A policy of that name is a policy.
    for path in [
        "/api/v1/policies/t/health",
        "/api/v1/policies/t/healthz",
        "/api/v1/policies/live/ready",
    ] {
        assert_eq!(sidecar.client().get(path).await.code(), "not_found", "{path}");
    }
    for path in [
        "/admin/snapshot/live",
        "/admin/live",
        "/live/../admin/snapshot",
        "/live/",
        "//live",
        "/Live",
    ] {
        let answer = raw(sidecar.admin, get(path)).await;
        assert_eq!(statuses(&answer), ["401"], "{path} {answer}");
    }
    let answer = raw(sidecar.admin, get("/admin/snapshot?/live")).await;
    assert_eq!(statuses(&answer), ["401"]);
    for path in ["/live", "/ready", "/metrics", "/live?x=/admin"] {
        assert_eq!(statuses(&raw(sidecar.admin, get(path)).await), ["200"], "{path}");
    }
    // The admin pages are not on the data plane.
    assert_eq!(
        sidecar.client().get("/admin/snapshot").await.status,
        StatusCode::NOT_FOUND
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_14_a_request_without_host_is_refused() {
    let (_heir, sidecar) = start().await;
    for path in ["/api/v1/policies/acme/chat", "/health", "/other"] {
        let (answer, closed) = converse(sidecar.data, format!("GET {path} HTTP/1.1\r\n\r\n{GOOD}")).await;
        assert_eq!(statuses(&answer), ["400"], "{path} {answer}");
        assert!(closed);
    }
    sidecar.stop().await;
}
