//! What the store answers: its paths, methods, limits, token and levels.

use beamline_sidecar::{
    heir::wire,
    store::{Level, StoreConfig},
};
use http::{Method, StatusCode};
use serde_json::json;

use super::{
    P, SNAPSHOT,
    running::{Running, config},
    scratch::Scratch,
};
use crate::support::until_closed;

#[tokio::test]
async fn bodies_are_limited_and_must_tell_their_length() {
    let store = Running::start(StoreConfig {
        max_body_bytes: 1000,
        max_module_bytes: 2000,
        ..config()
    })
    .await;
    let document = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    assert_eq!(store.put(P, document(1000)).await.status, 201);
    let large = store.put(P, document(1001)).await;
    assert_eq!(large.error(), (413, "payload_too_large".into()));
    // Sent in full before the answer is read: the refusal arrives all the same.
    assert_eq!(store.put(P, document(5_000_000)).await.status, 413);
    let module = format!("/api/v1/modules/{}", "0".repeat(64));
    assert_eq!(store.put(&module, vec![0; 2001]).await.status, 413);
    for head in [
        "PUT /api/v1/policies/t/p HTTP/1.1\r\nhost: x\r\n\r\n",
        "PUT /api/v1/policies/t/p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    ] {
        let (answer, end) = until_closed(store.address, head).await;
        end.unwrap();
        assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("length_required"), "{answer}");
    }
    // In chunks it is taken as well, within the same limit, and the connection ends.
    for (method, body, status) in [
        ("PUT", "2\r\n{}\r\n0\r\n\r\n".to_owned(), "201"),
        ("PUT", format!("3e9\r\n{}\r\n0\r\n\r\n", document(1001)), "413"),
        ("PUT", "3\r\n{}\r\n0\r\n\r\n".to_owned(), "400"),
        ("DELETE", "0\r\n\r\n".to_owned(), "204"),
    ] {
        let head = "/api/v1/policies/t/p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n";
        let (answer, end) = until_closed(store.address, format!("{method} {head}{body}")).await;
        end.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
    }
    let waiting = "PUT /api/v1/policies/t/p HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n";
    let (answer, end) = until_closed(store.address, waiting).await;
    end.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    store.stop().await;
}

#[tokio::test]
async fn a_compressed_body_is_named_as_such() {
    let store = Running::start(config()).await;
    for path in [P, "/api/v1/extensions/x"] {
        let gzip = store
            .request(Method::PUT, path, &[("content-encoding", "gzip")], "\x1f")
            .await;
        assert_eq!(gzip.error(), (415, "unsupported_media_type".into()));
        let plain = store
            .request(Method::PUT, path, &[("content-encoding", "identity")], "{}")
            .await;
        assert_eq!(plain.status, 201);
    }
    store.stop().await;
}

#[tokio::test]
async fn an_id_may_be_written_with_escapes() {
    let store = Running::start(config()).await;
    for (escaped, plain) in [
        ("/api/v1/policies/%61cme/%43hat", "/api/v1/policies/acme/Chat"),
        ("/api/v1/extensions/%41bc", "/api/v1/extensions/Abc"),
    ] {
        assert_eq!(store.put(escaped, "{}").await.status, 201);
        assert_eq!(store.get(plain).await.status, 200, "{plain}");
    }
    for bad in ["%2e%2e", "a%2fb", "a%20b", "%2541", "a%zz", "%ff"] {
        let refused = store.put(&format!("/api/v1/extensions/{bad}"), "{}").await;
        assert_eq!(refused.error(), (400, "invalid_request".into()), "{bad}");
    }
    store.stop().await;
}

#[tokio::test]
async fn paths_and_methods_are_exact() {
    let store = Running::start(config()).await;
    for (path, status) in [
        ("/", 404),
        ("/api/v1/policies", 404),
        ("/api/v1/policies/t/p/q", 404),
        ("/api/v1/snapshots", 404),
        ("/api/v1/modules", 404),
        ("/api/v1/extensions/a/b", 404),
        ("/api/v1/policies/t//", 400),
        ("/api/v1/policies/t/%2e%2e", 400),
        ("/api/v1/policies/t/a%20b", 400),
        ("/api/v1/extensions/a=b", 400),
        ("/api/v1/modules/ABC", 400),
        ("/health", 200),
        ("/%68ealth", 200),
    ] {
        assert_eq!(store.get(path).await.status, status, "{path}");
    }
    for (method, path, allow) in [
        (Method::POST, P, "GET, HEAD, PUT, DELETE"),
        (Method::PUT, "/api/v1/policies/acme", "GET, HEAD"),
        (Method::DELETE, SNAPSHOT, "GET, HEAD"),
        (Method::POST, "/health", "GET, HEAD"),
        (Method::HEAD, "/api/v1/changes?since=0", "GET"),
        (Method::PATCH, "/api/v1/extensions/x", "GET, HEAD, PUT, DELETE"),
    ] {
        let refused = store.request(method, path, &[("content-length", "0")], "").await;
        assert_eq!(
            (refused.status.as_u16(), refused.find_header("allow")),
            (405, Some(allow)),
            "{path}"
        );
    }
    store.stop().await;
}

#[tokio::test]
async fn without_the_token_only_health_answers() {
    let store = Running::start(StoreConfig {
        token: Some("s3cret".to_owned().into()),
        ..config()
    })
    .await;
    assert_eq!(store.get("/health").await.status, 200);
    for path in [P, SNAPSHOT, "/nothing", "/api/v1/policies/%2e/x"] {
        let refused = store.get(path).await;
        assert_eq!(refused.error(), (401, "unauthorized".into()), "{path}");
        assert_eq!(refused.find_header("www-authenticate"), Some("Bearer"));
    }
    for wrong in [
        "Bearer s3cre",
        "Bearer s3cretx",
        "Basic s3cret",
        "s3cret",
        "Bearer",
    ] {
        let refused = store
            .request(Method::PUT, P, &[("authorization", wrong)], "{}")
            .await;
        assert_eq!(refused.status, 401, "{wrong}");
    }
    for right in ["Bearer s3cret", "bearer s3cret"] {
        let got = store
            .request(Method::GET, SNAPSHOT, &[("authorization", right)], "")
            .await;
        assert_eq!(got.revision(), 0);
    }
    store.stop().await;
}

#[tokio::test]
async fn a_lower_level_knows_no_more_than_an_older_heir() {
    let folder = Scratch::sqlite();
    let statuses = async |level| {
        let store = folder.start_with(|config| config.level = level).await;
        store.put(P, "{}").await;
        let mut statuses = Vec::new();
        for path in [
            P,
            "/api/v1/policies/acme",
            SNAPSHOT,
            "/api/v1/extensions",
            "/api/v1/changes?since=0",
        ] {
            statuses.push(store.get(path).await.status.as_u16());
        }
        (store, statuses)
    };
    let (store, found) = statuses(Level::Single).await;
    assert_eq!(found, [200, 404, 404, 404, 404]);
    let headers = [
        ("if-match", "\"x\""),
        ("if-none-match", "*"),
        ("idempotency-key", "k"),
    ];
    for body in ["{\"a\":1}", "{\"a\":2}"] {
        let put = store.request(Method::PUT, P, &headers, body).await;
        assert_eq!((put.status, put.json()), (StatusCode::OK, json!({"ok": true})));
        assert_eq!(
            (put.find_header("etag"), put.find_header(wire::REVISION_HEADER)),
            (None, None)
        );
        let got = store.request(Method::GET, P, &headers, "").await;
        assert_eq!((got.status, &got.body[..]), (StatusCode::OK, body.as_bytes()));
        assert_eq!(
            (got.find_header("etag"), got.find_header(wire::REVISION_HEADER)),
            (None, None)
        );
    }
    assert_eq!(store.put(P, "[]").await.status, 422);
    let deleted = store.request(Method::DELETE, P, &headers, "").await;
    assert_eq!(
        (deleted.status, deleted.find_header(wire::REVISION_HEADER)),
        (StatusCode::NO_CONTENT, None)
    );
    store.stop().await;

    let (store, found) = statuses(Level::List).await;
    assert_eq!(found, [200, 200, 404, 404, 404]);
    let list = store.get("/api/v1/policies/acme").await;
    assert_eq!(list.json(), json!({"policies": [{"policy_id": "chat"}]}));
    assert_eq!(
        (list.find_header("etag"), list.find_header(wire::REVISION_HEADER)),
        (None, None)
    );
    store.stop().await;

    let (store, found) = statuses(Level::Snapshot).await;
    assert_eq!(found, [200, 200, 200, 200, 404]);
    assert!(store.get(P).await.find_header("etag").is_some());
    store.stop().await;
    let (store, found) = statuses(Level::Changes).await;
    assert_eq!(found, [200; 5]);
    store.stop().await;
    assert!(Level::Single < Level::List && Level::Snapshot < Level::Changes);
}
