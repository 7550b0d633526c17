//! Refusals that pass, and what is refused for good.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    support::{Fault, Faulty, Heir, Sidecar, eventually},
    writes::put_delete::{is_queued, replayed, with_state, writes},
};

/// A HEIR with three policies of two tenants, the way to it, and a sidecar that knows them.
async fn behind_a_proxy(level: Level, yaml: &str) -> (Heir, Faulty, tempfile::TempDir, Sidecar) {
    let heir = Heir::start(level).await;
    for name in ["acme/a", "acme/b", "other/c"] {
        heir.client().put_policy(name, r#"{"v":1}"#).await;
    }
    let faulty = Faulty::start(heir.address()).await;
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&faulty.url(), &format!("{}\n{yaml}", with_state(state.path())));
    sidecar.wait_for("live").await;
    for name in ["acme/a", "acme/b", "other/c"] {
        assert_eq!(sidecar.client().policy(name).await.status, StatusCode::OK);
    }
    (heir, faulty, state, sidecar)
}

fn of<'a>(page: &'a Value, policy: &str) -> &'a Value {
    let writes = page["writes"].as_array().unwrap();
    writes.iter().find(|write| write["policy_id"] == policy).unwrap()
}

async fn passes(level: Level, status: u16, location: &'static [(&'static str, &'static str)]) {
    let what = format!("{level}, {status}");
    let (heir, faulty, _state, sidecar) = behind_a_proxy(level, "").await;
    let client = sidecar.client();
    faulty.rule(|_| Fault::Refuse);
    assert!(is_queued(&client.put_policy("acme/a", r#"{"v":2}"#).await));
    assert!(is_queued(&client.delete_policy("acme/b").await));
    assert!(is_queued(&client.put_policy("acme/new", r#"{"v":2}"#).await));
    let before = faulty.seen().len();
    faulty.rule(move |seen| {
        if seen.path == "/health" {
            Fault::None
        } else {
            Fault::Say(status, location, "<h1>no</h1>".into())
        }
    });
    eventually("each has been tried, and says why it waits", || async {
        let page = writes(&sidecar).await;
        ["a", "b", "new"].iter().all(|policy| {
            let write = of(&page, policy);
            let said = write["last_error"].as_str().unwrap_or_default();
            write["attempts"].as_u64().unwrap() >= 2 && said.contains(&status.to_string())
        })
    })
    .await;
    assert!(faulty.seen().len() > before);
    let page = writes(&sidecar).await;
    assert_eq!(
        (&page["queued"], &page["conflicts"]),
        (&json!(3), &json!(0)),
        "{what}"
    );
    for name in ["acme/a", "acme/new"] {
        assert_eq!(
            client.policy(name).await.text(),
            r#"{"v":2}"#,
            "{what}: the Router sees its write"
        );
    }
    assert_eq!(
        client.policy("acme/b").await.status,
        StatusCode::NOT_FOUND,
        "{what}"
    );
    faulty.rule(|_| Fault::None);
    replayed(&sidecar).await;
    assert_eq!(writes(&sidecar).await["writes"], json!([]), "{what}");
    for name in ["acme/a", "acme/new"] {
        assert_eq!(
            heir.client().policy(name).await.text(),
            r#"{"v":2}"#,
            "{what}: {name}"
        );
    }
    assert_eq!(
        heir.client().policy("acme/b").await.status,
        StatusCode::NOT_FOUND,
        "{what}: the deletion was made, and not taken for done"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn a_passing_refusal_makes_no_conflict_of_a_write_at_every_level() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        for status in [401, 403, 404] {
            passes(level, status, &[]).await;
        }
    }
    for status in [408, 421, 425, 500, 501] {
        passes(Level::Changes, status, &[]).await;
    }
    passes(Level::Changes, 302, &[("location", "/login")]).await;
}

#[tokio::test]
async fn what_heir_goes_on_refusing_is_left_to_the_operator_after_so_many_attempts() {
    for status in [401, 404, 408, 500] {
        let (heir, faulty, _state, sidecar) =
            behind_a_proxy(Level::Changes, "writes: {max_attempts: 3}").await;
        faulty.rule(|_| Fault::Refuse);
        assert!(is_queued(
            &sidecar.client().put_policy("acme/a", r#"{"v":2}"#).await
        ));
        let puts = faulty.count("PUT");
        faulty.rule(move |seen| {
            if seen.is("PUT") {
                Fault::Say(status, &[], String::new())
            } else {
                Fault::None
            }
        });
        eventually("it is left to the operator", || async {
            writes(&sidecar).await["conflicts"] == 1
        })
        .await;
        assert_eq!(faulty.count("PUT") - puts, 3, "{status}");
        let page = writes(&sidecar).await;
        let detail = page["writes"][0]["status"]["detail"].as_str().unwrap();
        assert!(
            detail.starts_with("given up after 3 attempts: ") && detail.contains(&status.to_string()),
            "{detail}"
        );
        assert_eq!(page["writes"][0]["status"]["reason"], "refused_by_heir");
        eventually("HEIR's version is served", || async {
            sidecar.client().policy("acme/a").await.text() == r#"{"v":1}"#
        })
        .await;
        drop(heir);
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn one_tenants_refusals_do_not_hold_up_anothers_writes() {
    let (heir, faulty, _state, sidecar) = behind_a_proxy(Level::Changes, "").await;
    let client = sidecar.client();
    faulty.rule(|_| Fault::Refuse);
    for number in 0..20 {
        assert!(is_queued(
            &client.put_policy(&format!("acme/p{number}"), "{}").await
        ));
        assert!(is_queued(
            &client.put_policy(&format!("other/p{number}"), "{}").await
        ));
    }
    faulty.rule(|seen| {
        if seen.path.starts_with("/api/v1/policies/acme/") {
            Fault::Say(403, &[], String::new())
        } else {
            Fault::None
        }
    });
    eventually("the other tenant's are made", || async {
        writes(&sidecar).await["queued"] == 20
    })
    .await;
    for number in 0..20 {
        let answer = heir.client().policy(&format!("other/p{number}")).await;
        assert_eq!(answer.status, StatusCode::OK);
    }
    let page = writes(&sidecar).await;
    assert_eq!(page["conflicts"], 0);
    faulty.rule(|_| Fault::None);
    replayed(&sidecar).await;
    assert_eq!(writes(&sidecar).await["writes"], json!([]));
    sidecar.stop().await;
}

#[tokio::test]
async fn a_write_that_heir_hangs_or_hangs_up_on_does_not_hold_up_the_others() {
    for hangs in [false, true] {
        let (heir, faulty, _state, sidecar) =
            behind_a_proxy(Level::Changes, "writes: {max_attempts: 3}").await;
        let client = sidecar.client();
        faulty.rule(|_| Fault::Refuse);
        for name in ["acme/a", "acme/b", "other/c"] {
            assert!(is_queued(&client.put_policy(name, r#"{"v":2}"#).await));
        }
        faulty.rule(
            move |seen| match (seen.path == "/api/v1/policies/acme/a", hangs) {
                (false, _) => Fault::None,
                (true, false) => Fault::Refuse,
                (true, true) => Fault::Late(std::time::Duration::from_secs(60)),
            },
        );
        eventually("the others are made", || async {
            let has = async |name| heir.client().policy(name).await.text() == r#"{"v":2}"#;
            has("acme/b").await && has("other/c").await
        })
        .await;
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_404_to_everything_is_no_deletion_that_heir_has_made() {
    // Also where HEIR is there, and answers the caller itself.
    let (heir, faulty, _state, sidecar) = behind_a_proxy(Level::Snapshot, "").await;
    let client = sidecar.client();
    faulty.rule(|seen| {
        if seen.path == "/health" {
            Fault::None
        } else {
            Fault::Say(404, &[], "default backend".into())
        }
    });
    let answer = client.delete_policy("acme/b").await;
    assert_eq!(
        (answer.status, is_queued(&answer)),
        (StatusCode::NOT_FOUND, false)
    );
    assert_eq!(
        client.policy("acme/b").await.text(),
        r#"{"v":1}"#,
        "as HEIR has it"
    );
    faulty.rule(|_| Fault::None);
    assert_eq!(
        client.delete_policy("acme/b").await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(client.delete_policy("acme/b").await.status, StatusCode::NOT_FOUND);
    assert_eq!(heir.client().policy("acme/b").await.status, StatusCode::NOT_FOUND);
    sidecar.stop().await;
}

/// What stands before a HEIR that is away answers everything with a success of its own.
#[tokio::test]
async fn a_page_in_place_of_heir_makes_no_conflict_and_takes_no_write() {
    const HTML: &[(&str, &str)] = &[("content-type", "text/html; charset=utf-8")];
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        for (headers, body) in [(HTML, "<h1>soon</h1>"), (&[][..], ""), (&[], "[]")] {
            let what = format!("{level}, {body:?}");
            let (heir, faulty, _state, sidecar) = behind_a_proxy(level, "").await;
            let client = sidecar.client();
            faulty.rule(|_| Fault::Refuse);
            assert!(is_queued(&client.put_policy("acme/a", r#"{"v":2}"#).await));
            assert!(is_queued(&client.delete_policy("acme/b").await));
            assert!(is_queued(&client.put_policy("acme/new", r#"{"v":2}"#).await));
            faulty.rule(move |_| Fault::Say(200, headers, body.into()));
            eventually("each has been tried", || async {
                let page = writes(&sidecar).await;
                page["conflicts"] == 0
                    && (headers == HTML
                        || ["a", "b", "new"]
                            .iter()
                            .all(|policy| !of(&page, policy)["last_error"].is_null()))
                    && faulty.count("GET /health") > 2
            })
            .await;
            if headers == HTML {
                let put = client.put_policy("other/c", r#"{"v":2}"#).await;
                assert!(is_queued(&put), "{what}: {} {}", put.status, put.text());
            }
            faulty.rule(|_| Fault::None);
            replayed(&sidecar).await;
            assert_eq!(writes(&sidecar).await["conflicts"], 0, "{what}");
            let heir = heir.client();
            assert_eq!(heir.policy("acme/a").await.text(), r#"{"v":2}"#, "{what}");
            assert_eq!(heir.policy("acme/new").await.text(), r#"{"v":2}"#, "{what}");
            assert_eq!(
                heir.policy("acme/b").await.status,
                StatusCode::NOT_FOUND,
                "{what}"
            );
            sidecar.stop().await;
        }
    }
}
