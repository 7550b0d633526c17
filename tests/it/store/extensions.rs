//! The records and modules of extensions.

use beamline_sidecar::heir::wire;
use http::{Method, StatusCode};
use serde_json::json;
use sha2::{Digest, Sha256};

use super::{SNAPSHOT, running::read_snapshot, scratch::everywhere};

#[tokio::test]
async fn extensions_are_records_with_revisions() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let put = store.put("/api/v1/extensions/pii", "{\"module\":\"abc\"}").await;
        assert_eq!((put.status, put.revision()), (StatusCode::CREATED, 1));
        store
            .put("/api/v1/extensions/budget", "{\"id\":\"budget\"}")
            .await;
        assert_eq!(
            store.get("/api/v1/extensions/pii").await.body,
            "{\"module\":\"abc\"}"
        );
        assert_eq!(
            store.put("/api/v1/extensions/x", "[]").await.error(),
            (422, "invalid_policy".into())
        );
        let list = store.get("/api/v1/extensions").await;
        let expected = json!([{"id": "budget"}, {"id": "pii", "module": "abc"}]);
        assert_eq!(list.json()["extensions"], expected);

        let (revision, found) = read_snapshot(&store.get(SNAPSHOT).await.body);
        assert_eq!(revision, 2);
        assert_eq!(found["pii"], (1, "{\"module\":\"abc\"}".into()));
        store.put("/api/v1/extensions/pii", "{\n}").await;
        store.delete("/api/v1/extensions/budget").await;
        let answer = store.get("/api/v1/changes?since=2").await;
        let changes: wire::Changes<'_> = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((changes.from, changes.to), (2, 4));
        let told: Vec<_> = changes
            .changes
            .iter()
            .map(|c| {
                (
                    &*c.op,
                    &*c.kind,
                    c.id.as_deref().unwrap(),
                    c.extension.map(|e| e.get()),
                )
            })
            .collect();
        let expected = [
            ("put", "extension", "pii", Some("{ }")),
            ("delete", "extension", "budget", None),
        ];
        assert_eq!(told, expected);
        assert!(
            changes
                .changes
                .iter()
                .all(|c| c.policy.is_none() && c.policy_id.is_none())
        );
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn modules_are_what_their_name_says() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let path = format!("/api/v1/modules/{digest}");
        assert_eq!(store.get(&path).await.error(), (404, "not_found".into()));
        assert_eq!(store.put(&path, "other").await.status, 422);
        assert_eq!(store.put(&path, bytes.clone()).await.status, 201);
        assert_eq!(store.put(&path, bytes.clone()).await.status, 200);
        let got = store.get(&path).await;
        assert!(got.body == bytes);
        assert_eq!(got.etag(), format!("\"{digest}\""));
        assert_eq!(got.find_header("content-type"), Some("application/wasm"));
        assert_eq!(
            got.find_header("cache-control"),
            Some("public, max-age=31536000, immutable")
        );
        let head = store.request(Method::HEAD, &path, &[], "").await;
        assert_eq!(
            (head.status, head.find_header("content-length")),
            (StatusCode::OK, Some("3000000"))
        );
        let known = store
            .request(Method::GET, &path, &[("if-none-match", got.etag())], "")
            .await;
        assert_eq!((known.status, known.body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(store.get(SNAPSHOT).await.revision(), 0);
        store.stop().await;
    })
    .await;
}
