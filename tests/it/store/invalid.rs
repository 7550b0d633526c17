//! Documents that every sidecar would set aside.

use beamline_sidecar::store::{Store, StoreConfig};
use http::StatusCode;

use super::{
    P, SNAPSHOT,
    running::{Running, config},
};
use crate::support::Answer;

fn strict() -> StoreConfig {
    StoreConfig {
        allow_invalid: false,
        ..config()
    }
}

fn paths(answer: &Answer) -> Vec<String> {
    answer.json()["error"]["details"]["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|problem| problem["path"].as_str().unwrap().to_owned())
        .collect()
}

#[tokio::test]
async fn what_is_no_policy_or_no_record_is_refused_with_every_problem() {
    let store = Running::start(strict()).await;
    let refused = store
        .put(
            P,
            "{\"weights\":{\"a\":-1,\"b\":0.5},\"sticky\":{\"enabled\":\"yes\"}}",
        )
        .await;
    assert_eq!(refused.error(), (422, "invalid_policy".into()));
    let found = paths(&refused);
    for path in ["$.weights.a", "$.sticky.enabled"] {
        assert!(found.iter().any(|found| found == path), "{path}: {found:?}");
    }
    assert_eq!(store.put(P, "{}").await.error(), (422, "invalid_policy".into()));
    let refused = store.put("/api/v1/extensions/x", "{}").await;
    assert_eq!(refused.error(), (422, "invalid_policy".into()));
    assert_eq!(paths(&refused), ["$.id", "$.type"]);
    assert_eq!(store.get(SNAPSHOT).await.revision(), 0);

    let policy = "{\"weights\":{\"a\":1.0}}";
    assert_eq!(store.put(P, policy).await.status, StatusCode::CREATED);
    let record = "{\"id\":\"x\",\"type\":\"pre\",\"subject\":\"beamline.ext.x\"}";
    assert_eq!(
        store.put("/api/v1/extensions/x", record).await.status,
        StatusCode::CREATED
    );
    store.stop().await;
}

#[tokio::test]
async fn an_import_is_held_to_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let tenant = folder.path().join("acme");
    std::fs::create_dir(&tenant).unwrap();
    std::fs::write(tenant.join("good.json"), "{\"weights\":{\"a\":1.0}}").unwrap();
    std::fs::write(tenant.join("bad.json"), "{\"weights\":{\"a\":-1,\"b\":2}}").unwrap();
    let import = async |allow_invalid| {
        let config = StoreConfig {
            import: Some(folder.path().to_owned()),
            allow_invalid,
            ..config()
        };
        Store::build(config).await.unwrap().import().unwrap().clone()
    };
    let strict = import(false).await;
    assert_eq!((strict.created, strict.bad.len()), (1, 1));
    assert!(strict.bad[0].path.ends_with("bad.json"));
    assert_eq!(strict.bad[0].problems.len(), 2);
    let lenient = import(true).await;
    assert_eq!((lenient.created, lenient.bad.len()), (2, 0));
}
