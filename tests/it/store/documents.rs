//! Policies in the store: their bytes, conditions, idempotency keys, lists and mistakes.

use beamline_sidecar::{heir::wire, policy::ETag};
use http::{Method, StatusCode};
use serde_json::json;

use super::{
    P, SNAPSHOT, policy,
    running::{Running, config},
    scratch::everywhere,
};

#[tokio::test]
async fn documents_are_kept_byte_for_byte_and_outlive_the_process() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let document = "{ \"b\" : 50.0,\n\t\"é\":[\"\\u00e9😀\"]}\r\n";
        let put = store.put(P, document).await;
        assert_eq!(put.status, 201);
        let etag = ETag::of_bytes(document.as_bytes()).to_string();
        assert_eq!(put.json(), json!({"ok": true, "revision": 1, "etag": etag}));
        assert_eq!((put.etag(), put.revision()), (etag.as_str(), 1));
        store.stop().await;

        let store = scratch.start().await;
        let got = store.get(P).await;
        assert_eq!(got.body, document.as_bytes());
        assert_eq!(
            (got.status, got.etag(), got.revision()),
            (StatusCode::OK, etag.as_str(), 1)
        );
        assert_eq!(got.find_header("content-type"), Some("application/json"));
        let head = store.request(Method::HEAD, P, &[], "").await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert_eq!(
            head.find_header("content-length"),
            Some(document.len().to_string().as_str())
        );
        assert_eq!(head.etag(), etag);

        let replaced = store.put(P, "{}").await;
        assert_eq!((replaced.status, replaced.revision()), (StatusCode::OK, 2));
        let again = store.put(P, "{}").await;
        assert_eq!((again.status, again.revision()), (StatusCode::OK, 2));
        assert_eq!(again.etag(), replaced.etag());
        assert_eq!(store.get(SNAPSHOT).await.revision(), 2);

        let deleted = store.delete(P).await;
        assert_eq!((deleted.status, deleted.revision()), (StatusCode::NO_CONTENT, 3));
        assert_eq!(store.get(P).await.error(), (404, "not_found".into()));
        assert_eq!(store.delete(P).await.error(), (404, "not_found".into()));
        // Another tenant's policy of the same name is another policy.
        assert_eq!(store.put("/api/v1/policies/other/chat", "{}").await.revision(), 4);
        assert_eq!(store.get(P).await.status, 404);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_store_in_memory_works_and_forgets() {
    let store = Running::start(config()).await;
    let clients = (0..20).map(|n| {
        let client = store.client.clone();
        tokio::spawn(async move {
            assert_eq!(client.put(&policy(n), "{}").await.status, 201);
            assert_eq!(client.get(&policy(n)).await.status, 200);
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(store.get(SNAPSHOT).await.revision(), 20);
    store.stop().await;
    let store = Running::start(config()).await;
    assert_eq!(store.get(SNAPSHOT).await.revision(), 0);
    store.stop().await;
}

#[tokio::test]
async fn conditional_requests_are_answered_as_the_standard_says() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let absent = store.request(Method::PUT, P, &[("if-match", "*")], "{}").await;
        assert_eq!(absent.error(), (412, "precondition_failed".into()));
        assert_eq!(absent.find_header("etag"), None);
        let made = store
            .request(Method::PUT, P, &[("if-none-match", "*")], "{}")
            .await;
        assert_eq!(made.status, 201);
        let tag = made.etag().to_owned();

        for headers in [[("if-none-match", "*")], [("if-match", "\"other\"")]] {
            for method in [Method::PUT, Method::DELETE] {
                let refused = store.request(method, P, &headers, "{\"a\":1}").await;
                assert_eq!(refused.error(), (412, "precondition_failed".into()));
                assert_eq!(refused.etag(), tag);
            }
        }
        // What was refused took no revision.
        let list = format!("\"x\", {tag}");
        let replaced = store
            .request(Method::PUT, P, &[("if-match", &list)], "{\"a\":1}")
            .await;
        assert_eq!((replaced.status, replaced.revision()), (StatusCode::OK, 2));

        let new = replaced.etag().to_owned();
        let weak = format!("W/{new}");
        for known in [new.as_str(), weak.as_str(), "*"] {
            let same = store
                .request(Method::GET, P, &[("if-none-match", known)], "")
                .await;
            assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
            assert_eq!((same.etag(), same.revision()), (new.as_str(), 2));
        }
        let changed = store
            .request(Method::GET, P, &[("if-none-match", &tag)], "")
            .await;
        assert_eq!(changed.body, "{\"a\":1}");
        let deleted = store.request(Method::DELETE, P, &[("if-match", &new)], "").await;
        assert_eq!((deleted.status, deleted.revision()), (StatusCode::NO_CONTENT, 3));
        let gone = store.request(Method::DELETE, P, &[("if-match", &new)], "").await;
        assert_eq!(gone.status, 412);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_writes_once() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let key = [("idempotency-key", "write-1")];
        let first = store.request(Method::PUT, P, &key, "{}").await;
        store.put(P, "{\"later\":1}").await;
        let again = store.request(Method::PUT, P, &key, "{}").await;
        for answer in [&first, &again] {
            assert_eq!((answer.status, answer.revision()), (StatusCode::CREATED, 1));
        }
        assert_eq!(first.etag(), again.etag());
        assert_eq!(first.body, again.body);
        assert_eq!(store.get(P).await.body, "{\"later\":1}");

        let key = [("idempotency-key", "write-2")];
        for _ in 0..2 {
            let deleted = store.request(Method::DELETE, P, &key, "").await;
            assert_eq!((deleted.status, deleted.revision()), (StatusCode::NO_CONTENT, 3));
        }
        // A condition that held the first time does not stand in the way of the repetition.
        let headers = [("idempotency-key", "write-3"), ("if-none-match", "*")];
        for _ in 0..2 {
            let made = store.request(Method::PUT, P, &headers, "{}").await;
            assert_eq!((made.status, made.revision()), (StatusCode::CREATED, 4));
        }
        // A write that changes nothing is remembered too.
        let key = [("idempotency-key", "write-4")];
        assert_eq!(store.request(Method::PUT, P, &key, "{}").await.revision(), 4);
        store.put(P, "{\"b\":1}").await;
        assert_eq!(store.request(Method::PUT, P, &key, "{}").await.revision(), 4);
        assert_eq!(store.get(P).await.body, "{\"b\":1}");

        let other = store.request(Method::PUT, &policy("x"), &key, "{}").await;
        assert_eq!(other.error(), (409, "conflict".into()));
        assert_eq!(store.get(&policy("x")).await.status, 404);
        for bad in ["", &"k".repeat(129), "a b"] {
            let refused = store
                .request(Method::PUT, P, &[("idempotency-key", bad)], "{}")
                .await;
            assert_eq!(refused.error(), (400, "invalid_request".into()), "{bad:?}");
        }
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_refusal_is_remembered_with_its_key_and_the_conditions_are_part_of_it() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let old = ("if-match", "\"old\"");
        // 404 and 412 are answers as any: the repetition does not find what came meanwhile.
        let gone = [("idempotency-key", "gone")];
        let first = store.request(Method::DELETE, P, &gone, "").await;
        assert_eq!(first.error(), (404, "not_found".into()));
        let stale = [("idempotency-key", "stale"), old];
        let nothing = store.request(Method::PUT, P, &stale, "{\"mine\":1}").await;
        assert_eq!(nothing.error(), (412, "precondition_failed".into()));
        let made = store.put(P, "{}").await;
        let later = [("idempotency-key", "later"), old];
        let changed = store.request(Method::PUT, P, &later, "{\"mine\":1}").await;
        assert_eq!(changed.error(), (412, "precondition_failed".into()));
        assert_eq!(changed.etag(), made.etag());
        store.put(P, "{\"n\":2}").await;
        let again = store.request(Method::DELETE, P, &gone, "").await;
        assert_eq!((again.error(), again.body), (first.error(), first.body));
        let again = store.request(Method::PUT, P, &stale, "{\"mine\":1}").await;
        assert_eq!(
            (again.error(), again.find_header("etag")),
            (nothing.error(), None)
        );
        let again = store.request(Method::PUT, P, &later, "{\"mine\":1}").await;
        assert_eq!((again.error(), again.etag()), (changed.error(), made.etag()));
        assert_eq!(store.get(P).await.body, "{\"n\":2}");

        // The same key with another condition is another request.
        let etag = store.get(P).await.etag().to_owned();
        let one = [("idempotency-key", "one"), ("if-match", etag.as_str())];
        for _ in 0..2 {
            let put = store.request(Method::PUT, P, &one, "{\"n\":3}").await;
            assert_eq!((put.status, put.revision()), (StatusCode::OK, 3));
        }
        for conditions in [
            &[("idempotency-key", "one"), old][..],
            &[("idempotency-key", "one")],
        ] {
            let other = store.request(Method::PUT, P, conditions, "{\"n\":3}").await;
            assert_eq!(other.error(), (409, "conflict".into()));
        }
        // Whoever does not know what became of a write may ask for it again with a condition.
        let plain = store
            .request(Method::PUT, P, &[("idempotency-key", "two")], "{\"n\":4}")
            .await;
        let careful = [("idempotency-key", "two"), ("if-match", etag.as_str())];
        let again = store.request(Method::PUT, P, &careful, "{\"n\":4}").await;
        assert_eq!((again.status, again.revision()), (plain.status, plain.revision()));
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_list_names_its_elements_and_sorts_them_by_bytes() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        for (id, document) in [
            ("b", "{\"policy_id\":\"other\",\"n\":1}"),
            ("a.1", "{ }"),
            ("a_1", "{ \"policy_id\" : \"a_1\" }"),
            ("B", "{\"x\":1}"),
            ("a", "{\n}"),
        ] {
            assert_eq!(store.put(&policy(id), document).await.status, 201);
        }
        store.put("/api/v1/policies/acme2/z", "{}").await;
        let list = store.get("/api/v1/policies/acme").await;
        let expected = concat!(
            "{\"policies\":[{\"policy_id\":\"B\",\"x\":1},{\"policy_id\":\"a\"\n},{\"policy_id\":\"a.1\" },",
            "{ \"policy_id\" : \"a_1\" },{\"policy_id\":\"b\",\"n\":1}],\"etags\":"
        );
        let text = std::str::from_utf8(&list.body).unwrap();
        assert!(text.starts_with(expected), "{text}");
        let read: wire::List<'_> = serde_json::from_slice(&list.body).unwrap();
        assert_eq!(read.etags.len(), 5);
        assert_eq!(read.etags["a"], ETag::of_bytes(b"{\n}"));
        assert_eq!(list.revision(), 6);
        let same = store
            .request(
                Method::GET,
                "/api/v1/policies/acme",
                &[("if-none-match", list.etag())],
                "",
            )
            .await;
        assert_eq!(same.status, 304);
        let unknown = store.get("/api/v1/policies/nobody").await;
        assert_eq!(unknown.json(), json!({"policies": [], "etags": {}}));
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn every_problem_of_a_refused_policy_is_named() {
    let store = Running::start(config()).await;
    let refused = store.put(P, "{\"a\":1,\"b\":{\"c\":1,\"c\":2},\"a\":2}").await;
    assert_eq!(refused.error(), (422, "invalid_policy".into()));
    let problems = refused.json()["error"]["details"]["problems"].clone();
    let paths: Vec<_> = problems
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["$.b.c", "$.a"]);
    assert_eq!(store.put(P, "[]").await.error(), (422, "invalid_policy".into()));
    let broken = store.put(P, "{\"a\":").await;
    assert_eq!(broken.error(), (400, "invalid_json".into()));
    assert_eq!(broken.json()["error"]["details"]["problems"][0]["path"], "$");
    assert_eq!(store.put(P, " ").await.error(), (400, "invalid_json".into()));
    assert_eq!(store.get(SNAPSHOT).await.revision(), 0);
    store.stop().await;
}
