//! A journal whose disk is full, or whose files somebody took away.

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use serde_json::json;

use crate::{
    support::{Fault, Faulty, Heir, Sidecar, SmallDisk, eventually},
    writes::put_delete::{is_queued, replayed, with_state, writes},
};

fn long(version: usize) -> String {
    format!("{{\"v\":{version},\"text\":\"{}\"}}", "x".repeat(500_000))
}

#[tokio::test]
async fn a_full_disk_holds_up_no_replay_at_every_level() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        let Some(disk) = SmallDisk::mount("3m") else {
            return;
        };
        let heir = Heir::start(level).await;
        for name in ["acme/a", "acme/b", "acme/theirs"] {
            heir.client().put_policy(name, r#"{"v":1}"#).await;
        }
        let faulty = Faulty::start(heir.address()).await;
        let sidecar = Sidecar::start(&faulty.url(), &with_state(disk.path()));
        sidecar.wait_for("live").await;
        let client = sidecar.client();
        for name in ["acme/a", "acme/b", "acme/theirs"] {
            assert_eq!(client.policy(name).await.status, StatusCode::OK);
        }
        faulty.rule(|_| Fault::Refuse);
        // Each of them on top of the one before, which keeps all of them.
        for version in 2..6 {
            let tag = client.policy("acme/a").await.header("etag").to_owned();
            let put = client
                .send(
                    Method::PUT,
                    "/api/v1/policies/acme/a",
                    &[("if-match", &tag)],
                    long(version),
                )
                .await
                .unwrap();
            assert!(is_queued(&put), "{level}: {}", put.text());
        }
        for name in ["acme/theirs", "acme/b"] {
            assert!(is_queued(&client.put_policy(name, r#"{"v":2}"#).await));
        }
        heir.client().put_policy("acme/theirs", r#"{"theirs":1}"#).await;
        disk.fill();
        let puts = faulty.count("PUT");
        faulty.rule(|_| Fault::None);
        replayed(&sidecar).await;
        let page = writes(&sidecar).await;
        assert_eq!(page["writes"].as_array().unwrap().len(), 1, "{level}: {page}");
        assert_eq!(
            page["writes"][0]["status"]["reason"], "changed_in_heir",
            "{level}"
        );
        assert_eq!(heir.client().policy("acme/a").await.text(), long(5), "{level}");
        assert_eq!(
            heir.client().policy("acme/b").await.text(),
            r#"{"v":2}"#,
            "{level}"
        );
        assert_eq!(
            heir.client().policy("acme/theirs").await.text(),
            r#"{"theirs":1}"#,
            "{level}"
        );
        assert_eq!(faulty.count("PUT") - puts, 5, "{level}: each was sent once");
        // Where there is room again, the next start knows what this one knew.
        disk.free();
        eventually("the conflict is on the disk", || async {
            std::fs::read_dir(disk.path().join("journal"))
                .unwrap()
                .any(|file| file.unwrap().path().extension().unwrap() == "state")
        })
        .await;
        sidecar.stop().await;
        let sidecar = Sidecar::start(&faulty.url(), &with_state(disk.path()));
        let page = writes(&sidecar).await;
        assert_eq!(
            (&page["queued"], &page["conflicts"]),
            (&json!(0), &json!(1)),
            "{level}"
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_journal_file_that_vanished_holds_up_nothing() {
    let heir = Heir::start(Level::Changes).await;
    let names = ["acme/a", "acme/b", "acme/c"];
    for name in names {
        heir.client().put_policy(name, r#"{"v":1}"#).await;
    }
    let faulty = Faulty::start(heir.address()).await;
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&faulty.url(), &with_state(state.path()));
    sidecar.wait_for("live").await;
    faulty.rule(|_| Fault::Refuse);
    let client = sidecar.client();
    for name in names {
        assert!(is_queued(&client.put_policy(name, r#"{"v":2}"#).await));
    }
    let journal = state.path().join("journal");
    let mut files: Vec<_> = std::fs::read_dir(&journal)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    std::fs::remove_file(&files[0]).unwrap();
    faulty.rule(|_| Fault::None);
    replayed(&sidecar).await;
    // Lookups had the document of the first one too, so that nothing is lost.
    assert_eq!(writes(&sidecar).await["writes"], json!([]));
    for name in names {
        assert_eq!(heir.client().policy(name).await.text(), r#"{"v":2}"#, "{name}");
    }
    assert_eq!(
        faulty.count("PUT /api/v1/policies/acme/a"),
        2,
        "queued once, made once"
    );
    // One that nothing else has is named.
    faulty.rule(|_| Fault::Refuse);
    assert!(is_queued(&client.put_policy("acme/a", r#"{"v":3}"#).await));
    let tag = client.policy("acme/a").await.header("etag").to_owned();
    let path = "/api/v1/policies/acme/a";
    let second = client
        .send(Method::PUT, path, &[("if-match", &tag)], r#"{"v":4}"#)
        .await
        .unwrap();
    assert!(is_queued(&second));
    let mut files: Vec<_> = std::fs::read_dir(&journal)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    std::fs::remove_file(&files[0]).unwrap();
    assert!(is_queued(&client.put_policy("acme/b", r#"{"v":3}"#).await));
    faulty.rule(|_| Fault::None);
    replayed(&sidecar).await;
    assert_eq!(heir.client().policy("acme/b").await.text(), r#"{"v":3}"#);
    let page = writes(&sidecar).await;
    assert_eq!(page["writes"][0]["status"]["reason"], "damaged", "{page}");
    let id = page["writes"][0]["id"].as_u64().unwrap();
    let retried = sidecar
        .admin()
        .post(&format!("/admin/writes/{id}/retry"), "")
        .await;
    assert_eq!(
        (retried.status, retried.code()),
        (StatusCode::CONFLICT, "conflict".into())
    );
    let discarded = sidecar
        .admin()
        .post(&format!("/admin/writes/{id}/discard"), "")
        .await;
    assert_eq!(discarded.status, StatusCode::OK);
    sidecar.stop().await;
}
