//! Modules that are not needed any more.

use std::time::Duration;

use sha2::{Digest, Sha256};

use super::scratch::everywhere;
use crate::support::eventually;

fn path(bytes: &[u8]) -> (String, String) {
    let digest: String = Sha256::digest(bytes).iter().map(|b| format!("{b:02x}")).collect();
    (format!("/api/v1/modules/{digest}"), digest)
}

fn record(id: &str, digest: &str) -> String {
    format!(r#"{{"id":"{id}","type":"pre","module":"heir:sha256/{digest}"}}"#)
}

#[tokio::test]
async fn a_module_that_no_record_names_can_be_removed() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let (module, digest) = path(b"abc");
        assert_eq!(store.delete(&module).await.error(), (404, "not_found".into()));
        assert_eq!(store.put(&module, "abc").await.status, 201);
        assert_eq!(
            store
                .put("/api/v1/extensions/x", record("x", &digest))
                .await
                .status,
            201
        );
        assert_eq!(store.delete(&module).await.error(), (409, "conflict".into()));
        assert_eq!(store.get(&module).await.body, "abc");
        assert_eq!(store.delete("/api/v1/extensions/x").await.status, 204);
        assert_eq!(store.delete(&module).await.status, 204);
        assert_eq!(store.get(&module).await.status, 404);
        assert_eq!(store.put(&module, "abc").await.status, 201);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn modules_that_no_record_has_named_for_long_are_removed() {
    everywhere(async |scratch| {
        let (named, digest) = path(b"named");
        let (unnamed, _) = path(b"unnamed");
        let store = scratch.start_with(|config| config.modules_kept = None).await;
        for (module, bytes) in [(&named, "named"), (&unnamed, "unnamed")] {
            assert_eq!(store.put(module, bytes).await.status, 201);
        }
        store.put("/api/v1/extensions/x", record("x", &digest)).await;
        store.stop().await;

        let kept = Some(Duration::from_secs(1));
        let store = scratch.start_with(|config| config.modules_kept = kept).await;
        eventually("the one that no record names is removed", || async {
            store.get(&unnamed).await.status == 404
        })
        .await;
        assert_eq!(store.get(&named).await.body, "named");
        store.delete("/api/v1/extensions/x").await;
        eventually("the other one is, once none names it", || async {
            store.get(&named).await.status == 404
        })
        .await;
        store.stop().await;
    })
    .await;
}
