//! Writes that waited, once HEIR is back.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{path::Path, time::Duration};

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::json;

use crate::{
    support::{Fault, Faulty, Heir, Process, Sidecar, eventually},
    writes::put_delete::{is_queued, pair, replayed, with_state, writes},
};

#[tokio::test]
async fn queued_writes_are_made_in_order_at_every_level() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        let (mut heir, _state, sidecar) = pair(level).await;
        let client = sidecar.client();
        heir.gone().await;
        for text in ["{\"v\":2}", "{\"v\":3}"] {
            assert!(is_queued(&client.put_policy("acme/a", text).await), "{level}");
        }
        assert!(is_queued(&client.delete_policy("acme/a").await), "{level}");
        assert!(
            is_queued(&client.put_policy("acme/a", "{\"v\":4}").await),
            "{level}"
        );
        assert!(
            is_queued(&client.put_policy("acme/b", "{\"v\":5}").await),
            "{level}"
        );
        assert!(is_queued(&client.delete_policy("acme/b").await), "{level}");
        assert_eq!(client.policy("acme/a").await.text(), "{\"v\":4}");
        heir.back().await;
        replayed(&sidecar).await;
        assert_eq!(writes(&sidecar).await["writes"], json!([]), "{level}");
        assert_eq!(
            heir.client().policy("acme/a").await.text(),
            "{\"v\":4}",
            "{level}"
        );
        assert_eq!(
            heir.client().policy("acme/b").await.status,
            StatusCode::NOT_FOUND,
            "{level}"
        );
        assert_eq!(client.policy("acme/a").await.text(), "{\"v\":4}", "{level}");
        eventually("as HEIR has it", || async {
            client.policy("acme/b").await.status == StatusCode::NOT_FOUND
        })
        .await;
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_conflict_keeps_heirs_version_and_waits_for_an_operator() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        let (mut heir, _state, sidecar) = pair(level).await;
        let (client, operator) = (sidecar.client(), sidecar.admin());
        heir.client().put_policy("acme/b", "{\"v\":1}").await;
        eventually("acme/b is known", || async {
            client.policy("acme/b").await.status == StatusCode::OK
        })
        .await;
        // The sidecar does not reach HEIR; another client does.
        let elsewhere = Heir::start(Level::Changes).await;
        let away = heir.url();
        heir.gone().await;
        for name in ["acme/a", "acme/b", "acme/new"] {
            assert!(
                is_queued(&client.put_policy(name, "{\"mine\":1}").await),
                "{level}"
            );
        }
        drop((elsewhere, away));
        let mut direct = beamline_sidecar::store::StoreConfig {
            listen: beamline_sidecar::listener::Address::Tcp(([127, 0, 0, 1], 0).into()),
            database: heir.database().to_str().unwrap().to_owned(),
            allow_invalid: true,
            ..Default::default()
        };
        direct.drain = Duration::from_millis(100);
        let store = beamline_sidecar::store::Store::build(direct).await.unwrap();
        let beamline_sidecar::listener::Address::Tcp(address) = store.address().clone() else {
            panic!("TCP")
        };
        let stop = tokio_util::sync::CancellationToken::new();
        let running = tokio::spawn(store.run(stop.clone()));
        let other = crate::support::Client::new(address);
        for name in ["acme/a", "acme/new"] {
            other.put_policy(name, "{\"theirs\":1}").await;
        }
        other.delete_policy("acme/b").await;
        stop.cancel();
        running.await.unwrap();
        heir.back().await;
        replayed(&sidecar).await;
        let page = writes(&sidecar).await;
        assert_eq!(page["conflicts"], 3, "{level} {page}");
        for (index, write) in page["writes"].as_array().unwrap().iter().enumerate() {
            assert_eq!(
                (&write["status"]["state"], &write["status"]["reason"]),
                (&json!("conflict"), &json!("changed_in_heir")),
                "{level} {index}"
            );
        }
        for name in ["acme/a", "acme/new"] {
            assert_eq!(
                heir.client().policy(name).await.text(),
                "{\"theirs\":1}",
                "{level}"
            );
            eventually("HEIR's version is served", || async {
                client.policy(name).await.body == "{\"theirs\":1}"
            })
            .await;
        }
        eventually("HEIR's deletion holds", || async {
            client.policy("acme/b").await.status == StatusCode::NOT_FOUND
        })
        .await;
        let id = |index: usize| page["writes"][index]["id"].as_u64().unwrap();
        let discarded = operator
            .post(&format!("/admin/writes/{}/discard", id(0)), "")
            .await;
        assert_eq!(discarded.status, StatusCode::OK);
        for index in [1, 2] {
            assert_eq!(
                operator
                    .post(&format!("/admin/writes/{}/retry", id(index)), "")
                    .await
                    .status,
                StatusCode::OK
            );
        }
        eventually("retried", || async {
            writes(&sidecar).await["writes"] == json!([])
        })
        .await;
        assert_eq!(
            heir.client().policy("acme/a").await.text(),
            "{\"theirs\":1}",
            "{level}"
        );
        for name in ["acme/b", "acme/new"] {
            assert_eq!(heir.client().policy(name).await.text(), "{\"mine\":1}", "{level}");
            assert_eq!(client.policy(name).await.text(), "{\"mine\":1}", "{level}");
        }
        let none = operator.post("/admin/writes/999/retry", "").await;
        assert_eq!(
            (none.status, none.code()),
            (StatusCode::NOT_FOUND, "not_found".into())
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_write_that_heir_fails_on_does_not_block_those_behind_it() {
    for (status, reason) in [(500, "given up after 5 attempts"), (422, "HEIR answered 422")] {
        let heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("acme/a", "{\"v\":1}").await;
        let faulty = Faulty::start(heir.address()).await;
        let state = tempfile::tempdir().unwrap();
        let yaml = format!("writes: {{max_attempts: 5}}\n{}", with_state(state.path()));
        let sidecar = Sidecar::start(&faulty.url(), &yaml);
        sidecar.wait_for("live").await;
        faulty.rule(|_| Fault::Refuse);
        for name in ["acme/a", "acme/b"] {
            assert!(is_queued(&sidecar.client().put_policy(name, "{\"v\":2}").await));
        }
        faulty.rule(move |seen| {
            if seen.is("PUT /api/v1/policies/acme/a") {
                Fault::Say(status, &[], "{\"no\":1}".into())
            } else {
                Fault::None
            }
        });
        eventually("what is behind it is made", || async {
            heir.client().policy("acme/b").await.status == StatusCode::OK
        })
        .await;
        assert_eq!(heir.client().policy("acme/b").await.text(), "{\"v\":2}");
        replayed(&sidecar).await;
        let page = writes(&sidecar).await;
        assert_eq!(page["conflicts"], 1);
        assert_eq!(page["writes"][0]["status"]["reason"], "refused_by_heir");
        assert!(
            page["writes"][0]["status"]["detail"]
                .as_str()
                .unwrap()
                .starts_with(reason),
            "{page}"
        );
        eventually("HEIR's version is served", || async {
            sidecar.client().policy("acme/a").await.text() == "{\"v\":1}"
        })
        .await;
        sidecar.stop().await;
    }
}

/// The real program with a journal in this directory.
fn process(heir: &str, state: &Path) -> (Process, crate::support::Client, crate::support::Client) {
    let state = state.to_str().unwrap();
    let process = Process::start(
        &["run"],
        &[
            ("BEAMLINE_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_URL", heir),
            ("BEAMLINE_HEIR_TIMEOUT_MS", "1000"),
            ("BEAMLINE_HEIR_HEALTH_INTERVAL_MS", "200"),
            ("BEAMLINE_HEIR_BREAKER_OPEN_MS", "200"),
            ("BEAMLINE_REFRESH_INTERVAL_MS", "50"),
            ("BEAMLINE_STATE_DIR", state),
            ("BEAMLINE_LOG_FORMAT", "json"),
        ],
    );
    let data = crate::support::Client::new(&process.listen[0]);
    let admin = crate::support::Client::new(process.admin.unwrap());
    (process, data, admin)
}

#[tokio::test]
async fn queued_writes_survive_kill_9() {
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{\"v\":1}").await;
    let state = tempfile::tempdir().unwrap();
    let (mut first, client, admin) = process(&heir.url(), state.path());
    eventually("live", || async {
        admin.get("/ready").await.json()["state"] == "live"
    })
    .await;
    eventually("the snapshot is on disk", || async {
        state.path().join("snapshot").exists()
    })
    .await;
    heir.gone().await;
    for turn in 2..=4 {
        assert!(is_queued(
            &client.put_policy("acme/a", format!("{{\"v\":{turn}}}")).await
        ));
    }
    assert!(is_queued(&client.put_policy("acme/b", "{}").await));
    first.kill();

    let (mut second, client, admin) = process(&heir.url(), state.path());
    assert_eq!(client.policy("acme/a").await.text(), "{\"v\":4}");
    assert_eq!(
        client.policy("acme/a").await.header("x-beamline-source"),
        "journal"
    );
    assert!(is_queued(&client.delete_policy("acme/b").await));
    // Those to acme/a have taken each other's place; acme/b's first may have been sent by the run that was killed.
    assert_eq!(admin.get("/admin/writes").await.json()["queued"], 3);
    second.kill();
    // One write's file is damaged meanwhile: it costs that write, and says so.
    let mut files: Vec<_> = std::fs::read_dir(state.path().join("journal"))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    assert_eq!(files.len(), 3);
    let damaged = std::fs::read(&files[1]).unwrap();
    std::fs::write(&files[1], &damaged[..damaged.len() / 2]).unwrap();

    let (third, client, admin) = process(&heir.url(), state.path());
    eventually("it is reported", || async {
        third.log().iter().any(|line| {
            line.contains("A write in the journal cannot be read.") && line.contains("is damaged")
        })
    })
    .await;
    assert!(!files[1].exists());
    assert!(files[1].with_extension("damaged").exists());
    heir.back().await;
    eventually("nothing waits", || async {
        admin.get("/admin/writes").await.json()["queued"] == 0
    })
    .await;
    assert_eq!(heir.client().policy("acme/a").await.text(), "{\"v\":4}");
    assert_eq!(client.policy("acme/a").await.text(), "{\"v\":4}");
    // No write of acme/b reached HEIR, so there is nothing left to delete.
    assert_eq!(heir.client().policy("acme/b").await.status, StatusCode::NOT_FOUND);
}

#[tokio::test]
async fn what_a_restored_heir_has_lost_is_listed_and_can_be_put_back() {
    for level in [Level::Snapshot, Level::Changes] {
        let (mut heir, _state, sidecar) = pair(level).await;
        let client = sidecar.client();
        client.put_policy("acme/kept", "{\"kept\":1}").await;
        heir.client().put_policy("acme/old", "{}").await;
        eventually("all is seen", || async {
            client.policy("acme/old").await.status == StatusCode::OK
        })
        .await;
        heir.gone().await;
        let backup = heir.backup();
        heir.back().await;
        sidecar.wait_for("live").await;
        assert_eq!(
            client.put_policy("acme/lost", "{\"lost\":1}").await.status,
            StatusCode::CREATED
        );
        assert_eq!(
            client.delete_policy("acme/old").await.status,
            StatusCode::NO_CONTENT
        );
        heir.gone().await;
        heir.restore(&backup);
        heir.back().await;
        eventually("the losses are listed", || async {
            writes(&sidecar).await["conflicts"] == 2
        })
        .await;
        let page = writes(&sidecar).await;
        for write in page["writes"].as_array().unwrap() {
            assert_eq!(write["status"]["reason"], "lost_in_restore", "{level}");
            let id = write["id"].as_u64().unwrap();
            assert_eq!(
                sidecar
                    .admin()
                    .post(&format!("/admin/writes/{id}/retry"), "")
                    .await
                    .status,
                StatusCode::OK
            );
        }
        eventually("they are made again", || async {
            writes(&sidecar).await["writes"] == json!([])
        })
        .await;
        assert_eq!(heir.client().policy("acme/lost").await.text(), "{\"lost\":1}");
        assert_eq!(
            heir.client().policy("acme/old").await.status,
            StatusCode::NOT_FOUND
        );
        assert_eq!(heir.client().policy("acme/kept").await.text(), "{\"kept\":1}");
        assert_eq!(client.policy("acme/lost").await.text(), "{\"lost\":1}");
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_loss_between_two_refreshes_is_noticed() {
    // HEIR comes back at the very revision that the last refresh saw, without the write that came after it.
    for level in [Level::Snapshot, Level::Changes] {
        let mut heir = Heir::start(level).await;
        heir.client().put_policy("acme/a", "{\"v\":1}").await;
        let state = tempfile::tempdir().unwrap();
        let faulty = Faulty::start(heir.address()).await;
        let yaml = format!(
            "state_dir: {}\nrefresh: {{interval_ms: 3600000, long_poll_timeout_ms: 60000}}",
            state.path().display()
        );
        let sidecar = Sidecar::start(&faulty.url(), &yaml);
        sidecar.wait_for("live").await;
        let client = sidecar.client();
        heir.gone().await;
        let backup = heir.backup();
        heir.back().await;
        // No refresh gets through from here on, only the write.
        faulty.rule(|seen| {
            if seen.method == "GET" && !seen.is("GET /health") {
                Fault::Refuse
            } else {
                Fault::None
            }
        });
        eventually("the write is forwarded", || async {
            let put = client.put_policy("acme/lost", "{\"lost\":1}").await;
            put.status == StatusCode::CREATED && !is_queued(&put)
        })
        .await;
        heir.gone().await;
        heir.restore(&backup);
        heir.back().await;
        faulty.rule(|_| Fault::None);
        eventually("the loss is listed", || async {
            sidecar.admin().post("/admin/refresh", "").await;
            writes(&sidecar).await["writes"][0]["status"]["reason"] == "lost_in_restore"
        })
        .await;
        assert_eq!(
            client.policy("acme/lost").await.status,
            StatusCode::NOT_FOUND,
            "{level}: as HEIR has it"
        );
        sidecar.stop().await;
    }
}
