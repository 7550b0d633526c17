//! A HEIR that comes back able to do less, or more, than the one before.

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::json;

use crate::{
    support::{Client, Fault, Faulty, Heir, Sidecar, SidecarProcess, eventually},
    writes::put_delete::{is_queued, replayed, with_state, writes},
};

const LEVELS: [Level; 4] = [Level::Single, Level::List, Level::Snapshot, Level::Changes];

/// Lets writes and reads of single policies through, and nothing by which a refresh would find out what HEIR can do.
fn singly(faulty: &Faulty) {
    faulty.rule(|seen| {
        let single = seen.path.matches('/').count() == 5 && seen.path.starts_with("/api/v1/policies/");
        if single || seen.path == "/health" {
            Fault::None
        } else {
            Fault::Refuse
        }
    });
}

#[tokio::test]
async fn a_newer_version_of_another_client_survives_whatever_heir_comes_back_as() {
    for before in LEVELS {
        for after in LEVELS {
            let what = format!("{before}, then {after}");
            let mut heir = Heir::start(before).await;
            for name in ["acme/put", "acme/deleted", "acme/own"] {
                heir.client().put_policy(name, r#"{"v":1}"#).await;
            }
            let faulty = Faulty::start(heir.address()).await;
            let state = tempfile::tempdir().unwrap();
            let sidecar = Sidecar::start(&faulty.url(), &with_state(state.path()));
            sidecar.wait_for("live").await;
            let client = sidecar.client();
            for name in ["acme/put", "acme/deleted", "acme/own", "acme/new"] {
                client.policy(name).await;
            }
            faulty.rule(|_| Fault::Refuse);
            for name in ["acme/put", "acme/own", "acme/new"] {
                assert!(
                    is_queued(&client.put_policy(name, r#"{"ours":1}"#).await),
                    "{what}"
                );
            }
            assert!(is_queued(&client.delete_policy("acme/deleted").await), "{what}");
            for name in ["acme/put", "acme/deleted", "acme/new"] {
                heir.client().put_policy(name, r#"{"theirs":1}"#).await;
            }
            heir.gone().await;
            heir.set_level(after);
            heir.back().await;
            singly(&faulty);
            replayed(&sidecar).await;
            assert_eq!(writes(&sidecar).await["conflicts"], 3, "{what}");
            for name in ["acme/put", "acme/deleted", "acme/new"] {
                assert_eq!(
                    heir.client().policy(name).await.text(),
                    r#"{"theirs":1}"#,
                    "{what}: {name}"
                );
            }
            assert_eq!(heir.client().policy("acme/own").await.text(), r#"{"ours":1}"#);
            sidecar.stop().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_operator_repeats_replaces_the_version_that_was_there_and_no_later_one() {
    for level in LEVELS {
        let heir = Heir::start(level).await;
        heir.client().put_policy("acme/a", r#"{"v":1}"#).await;
        let faulty = Faulty::start(heir.address()).await;
        let folder = tempfile::tempdir().unwrap();
        let yaml = "refresh: {interval_ms: 50, long_poll_timeout_ms: 1000}\n";
        let mut sidecar = SidecarProcess::start(folder.path(), faulty.address, yaml).await;
        sidecar.wait_for("live").await;
        let waits = async |sidecar: &SidecarProcess, what: &str| {
            sidecar.admin().get("/admin/writes").await.json()[what].clone()
        };
        sidecar.client().policy("acme/a").await;
        faulty.rule(|_| Fault::Refuse);
        let put = sidecar.client().put_policy("acme/a", r#"{"ours":1}"#).await;
        assert!(is_queued(&put), "{level}");
        heir.client().put_policy("acme/a", r#"{"theirs":1}"#).await;
        faulty.rule(|_| Fault::None);
        eventually("it is a conflict", || async {
            waits(&sidecar, "conflicts").await == 1
        })
        .await;
        let id = waits(&sidecar, "writes").await[0]["id"].as_u64().unwrap();
        // HEIR makes it, and the sidecar does not come to hear of it.
        let mut made = false;
        faulty.rule(move |seen| {
            made |= seen.is("PUT");
            match (seen.is("PUT"), made) {
                (true, _) => Fault::Lose,
                (false, true) => Fault::Refuse,
                (false, false) => Fault::None,
            }
        });
        let path = format!("/admin/writes/{id}/retry");
        assert_eq!(sidecar.admin().post(&path, "").await.status, StatusCode::OK);
        eventually("HEIR has it", || async {
            heir.client().policy("acme/a").await.text() == r#"{"ours":1}"#
        })
        .await;
        sidecar.process.kill();
        heir.client().put_policy("acme/a", r#"{"later":1}"#).await;
        faulty.rule(|_| Fault::None);
        sidecar.up().await;
        eventually("nothing waits for HEIR", || async {
            waits(&sidecar, "queued").await == 0
        })
        .await;
        assert_eq!(
            heir.client().policy("acme/a").await.text(),
            r#"{"later":1}"#,
            "{level}"
        );
        assert_eq!(
            waits(&sidecar, "conflicts").await,
            1,
            "{level}: and the operator knows"
        );
    }
}

/// A client of HEIR, and what HEIR has.
async fn has(heir: &Client, name: &str) -> Option<String> {
    let answer = heir.policy(name).await;
    (answer.status == StatusCode::OK).then(|| answer.text().to_owned())
}

#[tokio::test]
async fn a_write_that_heir_may_have_is_not_replaced_but_followed() {
    for level in LEVELS {
        let heir = Heir::start(level).await;
        heir.client().put_policy("acme/a", r#"{"v":1}"#).await;
        heir.client().put_policy("acme/b", r#"{"v":1}"#).await;
        let faulty = Faulty::start(heir.address()).await;
        let state = tempfile::tempdir().unwrap();
        let sidecar = Sidecar::start(&faulty.url(), &with_state(state.path()));
        sidecar.wait_for("live").await;
        let client = sidecar.client();
        client.policy("acme/a").await;
        client.policy("acme/b").await;
        // HEIR makes both, and its answers are lost.
        faulty.rule(|seen| {
            if matches!(seen.method.as_str(), "PUT" | "DELETE") {
                Fault::Lose
            } else if seen.is("GET /health") {
                Fault::None
            } else {
                Fault::Refuse
            }
        });
        // At once: where HEIR is known to be away, it is not asked.
        let (put, deleted) = tokio::join!(
            client.put_policy("acme/a", r#"{"v":2}"#),
            client.delete_policy("acme/b"),
        );
        assert!(is_queued(&put) && is_queued(&deleted), "{level}");
        assert_eq!(has(&heir.client(), "acme/a").await.as_deref(), Some(r#"{"v":2}"#));
        assert_eq!(has(&heir.client(), "acme/b").await, None);
        faulty.rule(|_| Fault::Refuse);
        for version in 3..6 {
            let text = format!("{{\"v\":{version}}}");
            for name in ["acme/a", "acme/b"] {
                assert!(is_queued(&client.put_policy(name, text.clone()).await), "{level}");
            }
        }
        assert_eq!(
            writes(&sidecar).await["queued"],
            4,
            "{level}: the last takes the place of those before"
        );
        faulty.rule(|_| Fault::None);
        replayed(&sidecar).await;
        assert_eq!(writes(&sidecar).await["writes"], json!([]), "{level}");
        for name in ["acme/a", "acme/b"] {
            assert_eq!(
                has(&heir.client(), name).await.as_deref(),
                Some(r#"{"v":5}"#),
                "{level}: {name}"
            );
            assert_eq!(client.policy(name).await.text(), r#"{"v":5}"#, "{level}: {name}");
        }
        sidecar.stop().await;
    }
}
