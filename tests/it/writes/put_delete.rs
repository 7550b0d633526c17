//! PUT and DELETE while HEIR is there, while it is away, and when it is back.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::path::Path;

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Answer, Fault, Faulty, Heir, Sidecar, eventually};

const SOON: &str = "refresh: {interval_ms: 50, long_poll_timeout_ms: 1000, negative_ttl_ms: 50}";
const A: &str = "/api/v1/policies/acme/a";

pub(crate) fn with_state(dir: &Path) -> String {
    format!("state_dir: {}\n{SOON}", dir.display())
}

pub(crate) async fn writes(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/writes").await.json()
}

/// Waits until nothing waits for HEIR; conflicts stay.
pub(crate) async fn replayed(sidecar: &Sidecar) {
    eventually("nothing waits for HEIR", || async {
        writes(sidecar).await["queued"] == 0
    })
    .await;
}

pub(crate) fn is_queued(answer: &Answer) -> bool {
    answer.header("x-beamline-write") == "queued"
}

/// A HEIR with acme/a, and a sidecar with a journal that has seen it.
pub(crate) async fn pair(level: Level) -> (Heir, TempDir, Sidecar) {
    let heir = Heir::start(level).await;
    heir.client().put_policy("acme/a", "{\"v\":1}").await;
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&heir.url(), &with_state(state.path()));
    sidecar.wait_for("live").await;
    assert_eq!(sidecar.client().policy("acme/a").await.status, StatusCode::OK);
    assert_eq!(
        sidecar.client().get("/api/v1/policies/acme").await.status,
        StatusCode::OK
    );
    (heir, state, sidecar)
}

#[tokio::test]
async fn a_write_is_forwarded_and_visible_before_it_is_answered() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        let (heir, _state, sidecar) = pair(level).await;
        let client = sidecar.client();
        let validators = level >= Level::Snapshot;
        for turn in 0..20 {
            let text = format!("{{\"turn\":{turn}}}");
            let put = client.put_policy("acme/new", text.clone()).await;
            let expected = if turn == 0 {
                StatusCode::CREATED
            } else {
                StatusCode::OK
            };
            assert_eq!((put.status, is_queued(&put)), (expected, false), "{level}");
            let got = client.policy("acme/new").await;
            assert_eq!(got.text(), text, "{level}");
            let own = heir.client().policy("acme/new").await;
            assert_eq!(own.text(), text);
            if validators {
                assert_eq!(put.header("etag"), got.header("etag"));
                assert_eq!(put.header("etag"), own.header("etag"));
                assert_eq!(put.header("x-heir-revision"), own.header("x-heir-revision"));
            }
        }
        assert_eq!(
            client.delete_policy("acme/new").await.status,
            StatusCode::NO_CONTENT
        );
        assert_eq!(
            client.policy("acme/new").await.status,
            StatusCode::NOT_FOUND,
            "{level}"
        );
        assert_eq!(
            heir.client().policy("acme/new").await.status,
            StatusCode::NOT_FOUND
        );
        assert_eq!(
            client.delete_policy("acme/new").await.status,
            StatusCode::NOT_FOUND,
            "already gone"
        );
        assert_eq!(
            sidecar
                .metric("beamline_sidecar_writes_total{outcome=\"forwarded\"}")
                .await,
            22.0
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn what_heir_says_to_a_write_is_passed_on() {
    let (heir, _state, sidecar) = pair(Level::Changes).await;
    let client = sidecar.client();
    let put = async |headers: &[(&str, &str)], body: &'static str| {
        client.send(Method::PUT, A, headers, body).await.unwrap()
    };
    let old = put(&[("if-match", "\"old\"")], "{}").await;
    assert_eq!(
        (old.status, old.code()),
        (StatusCode::PRECONDITION_FAILED, "precondition_failed".into())
    );
    let there = put(&[("if-none-match", "*")], "{}").await;
    assert_eq!(
        (there.status, there.code()),
        (StatusCode::PRECONDITION_FAILED, "precondition_failed".into())
    );
    let no_json = put(&[], "{\"a\":").await;
    assert_eq!(
        (no_json.status, no_json.code()),
        (StatusCode::BAD_REQUEST, "invalid_json".into())
    );
    let no_policy = put(&[], "[1]").await;
    assert_eq!(
        (no_policy.status, no_policy.code()),
        (StatusCode::UNPROCESSABLE_ENTITY, "invalid_policy".into())
    );
    let long = format!("{{\"a\":\"{}\"}}", "x".repeat(2 << 20));
    let long = client.send(Method::PUT, A, &[], long).await;
    if let Ok(long) = long {
        assert_eq!(
            (long.status, long.code()),
            (StatusCode::PAYLOAD_TOO_LARGE, "payload_too_large".into())
        );
    }
    assert_eq!(client.policy("acme/a").await.text(), "{\"v\":1}");
    let tag = client.policy("acme/a").await.header("etag").to_owned();
    assert_eq!(
        put(&[("if-match", &tag)], "{\"v\":2}").await.status,
        StatusCode::OK
    );
    assert_eq!(heir.client().policy("acme/a").await.text(), "{\"v\":2}");
    let gone = client
        .send(Method::DELETE, A, &[("if-match", &tag)], "")
        .await
        .unwrap();
    assert_eq!(gone.status, StatusCode::PRECONDITION_FAILED);
    // What HEIR alone objects to comes with HEIR's own words.
    let faulty = Faulty::start(heir.address()).await;
    let other = Sidecar::start(&faulty.url(), SOON);
    other.wait_for("live").await;
    for status in [400, 403, 409, 413, 422] {
        faulty.rule(move |seen| {
            if seen.is("PUT") {
                Fault::Say(
                    status,
                    &[("x-why", "because")],
                    "{\"error\":{\"code\":\"mine\"}}".into(),
                )
            } else {
                Fault::None
            }
        });
        let refused = other.client().put_policy("acme/a", "{\"v\":3}").await;
        assert_eq!(
            (refused.status.as_u16(), refused.code(), refused.header("x-why")),
            (status, "mine".into(), "because")
        );
        assert_eq!(other.client().policy("acme/a").await.text(), "{\"v\":2}");
    }
    other.stop().await;
    sidecar.stop().await;
}

#[tokio::test]
async fn without_heir_a_write_is_queued_and_shows_at_once() {
    let (mut heir, _state, sidecar) = pair(Level::Changes).await;
    let client = sidecar.client();
    heir.gone().await;
    let put = client.put_policy("acme/a", "{\"v\":2}").await;
    assert_eq!(
        (put.status, is_queued(&put), put.json()),
        (StatusCode::OK, true, json!({"ok": true, "queued": true}))
    );
    let created = client.put_policy("acme/b", "{\"v\":3}").await;
    assert_eq!((created.status, is_queued(&created)), (StatusCode::CREATED, true));
    let got = client.policy("acme/a").await;
    assert_eq!(
        (got.text(), got.header("x-beamline-source")),
        ("{\"v\":2}", "journal")
    );
    assert_eq!(got.header("etag"), put.header("etag"));
    assert_eq!(client.policy("acme/b").await.text(), "{\"v\":3}");
    let list = client.get("/api/v1/policies/acme").await;
    assert_eq!(
        list.json(),
        json!({"policies": [{"policy_id": "a", "v": 2}, {"policy_id": "b", "v": 3}]})
    );
    assert_eq!(
        (list.header("x-beamline-stale"), list.header("warning").is_empty()),
        ("true", false)
    );
    let gone = client.delete_policy("acme/a").await;
    assert_eq!(
        (gone.status, is_queued(&gone), gone.body.len()),
        (StatusCode::NO_CONTENT, true, 0)
    );
    assert_eq!(client.policy("acme/a").await.status, StatusCode::NOT_FOUND);
    assert_eq!(
        client.delete_policy("acme/a").await.status,
        StatusCode::NOT_FOUND,
        "already gone"
    );
    assert_eq!(
        client.delete_policy("acme/none").await.status,
        StatusCode::NOT_FOUND
    );
    let page = writes(&sidecar).await;
    assert_eq!(
        (&page["durable"], &page["queued"], &page["conflicts"]),
        (&json!(true), &json!(2), &json!(0))
    );
    let ops: Vec<_> = page["writes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|w| (w["policy_id"].as_str().unwrap(), w["op"].as_str().unwrap()))
        .collect();
    assert_eq!(ops, [("b", "put"), ("a", "delete")]);
    heir.back().await;
    replayed(&sidecar).await;
    assert_eq!(writes(&sidecar).await["conflicts"], 0);
    assert_eq!(heir.client().policy("acme/a").await.status, StatusCode::NOT_FOUND);
    assert_eq!(heir.client().policy("acme/b").await.text(), "{\"v\":3}");
    eventually("it is HEIR's now", || async {
        client.policy("acme/b").await.header("x-beamline-source") == "heir"
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn preconditions_are_checked_while_a_write_waits() {
    let (mut heir, _state, sidecar) = pair(Level::Changes).await;
    let client = sidecar.client();
    heir.gone().await;
    let tag = client.policy("acme/a").await.header("etag").to_owned();
    let put = async |headers: &[(&str, &str)], body: &'static str| {
        client.send(Method::PUT, A, headers, body).await.unwrap()
    };
    assert_eq!(
        put(&[("if-match", "\"old\"")], "{}").await.status,
        StatusCode::PRECONDITION_FAILED
    );
    assert_eq!(
        put(&[("if-none-match", "*")], "{}").await.status,
        StatusCode::PRECONDITION_FAILED
    );
    let second = put(&[("if-match", &tag)], "{\"v\":2}").await;
    assert_eq!((second.status, is_queued(&second)), (StatusCode::OK, true));
    let refused = put(&[("if-match", &tag)], "{\"v\":3}").await;
    assert_eq!(
        (refused.status, refused.header("etag")),
        (StatusCode::PRECONDITION_FAILED, second.header("etag"))
    );
    assert_eq!(
        put(&[("if-match", second.header("etag"))], "{\"v\":3}")
            .await
            .status,
        StatusCode::OK
    );
    assert_eq!(
        client
            .send(Method::DELETE, A, &[("if-match", &tag)], "")
            .await
            .unwrap()
            .status,
        StatusCode::PRECONDITION_FAILED
    );
    assert_eq!(put(&[], "[]").await.status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(writes(&sidecar).await["queued"], 2);
    heir.back().await;
    replayed(&sidecar).await;
    assert_eq!(heir.client().policy("acme/a").await.text(), "{\"v\":3}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_local_file_is_none_of_heirs_versions() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("acme")).unwrap();
    std::fs::write(folder.path().join("acme/f.json"), "{\"from\":\"file\"}").unwrap();
    let mut heir = Heir::start(Level::Changes).await;
    let state = tempfile::tempdir().unwrap();
    let yaml = format!(
        "policies_dir: {}\n{}",
        folder.path().display(),
        with_state(state.path())
    );
    let sidecar = Sidecar::start(&heir.url(), &yaml);
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    assert_eq!(client.policy("acme/f").await.header("x-beamline-source"), "file");
    heir.gone().await;
    assert_eq!(
        client.delete_policy("acme/f").await.status,
        StatusCode::NOT_FOUND,
        "HEIR has none to delete"
    );
    let put = client.put_policy("acme/f", "{\"from\":\"router\"}").await;
    assert_eq!(
        (put.status, is_queued(&put)),
        (StatusCode::CREATED, true),
        "HEIR had none"
    );
    heir.back().await;
    replayed(&sidecar).await;
    assert_eq!(
        writes(&sidecar).await["writes"],
        json!([]),
        "no conflict with a file that HEIR never had"
    );
    assert_eq!(
        heir.client().policy("acme/f").await.text(),
        "{\"from\":\"router\"}"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn writes_are_refused_where_they_cannot_be_kept() {
    for (yaml, durable) in [
        (format!("writes: {{when_heir_down: reject}}\n{SOON}"), false),
        (SOON.to_owned(), false),
        ("reject".to_owned(), true),
    ] {
        let mut heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("acme/a", "{\"v\":1}").await;
        let state = tempfile::tempdir().unwrap();
        let yaml = if durable {
            format!("writes: {{when_heir_down: reject}}\n{}", with_state(state.path()))
        } else {
            yaml
        };
        let sidecar = Sidecar::start(&heir.url(), &yaml);
        sidecar.wait_for("live").await;
        heir.gone().await;
        for refused in [
            sidecar.client().put_policy("acme/a", "{}").await,
            sidecar.client().delete_policy("acme/a").await,
        ] {
            assert_eq!(
                (refused.status, refused.code()),
                (StatusCode::SERVICE_UNAVAILABLE, "heir_unavailable".into())
            );
            assert!(!refused.header("retry-after").is_empty());
        }
        assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":1}");
        assert_eq!(writes(&sidecar).await["writes"], json!([]));
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_full_journal_takes_no_more() {
    let mut heir = Heir::start(Level::Changes).await;
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(
        &heir.url(),
        &format!("writes: {{max_queued: 3}}\n{}", with_state(state.path())),
    );
    sidecar.wait_for("live").await;
    heir.gone().await;
    let client = sidecar.client();
    for id in 0..3 {
        assert_eq!(
            client.put_policy(&format!("acme/{id}"), "{}").await.status,
            StatusCode::CREATED
        );
    }
    let refused = client.put_policy("acme/3", "{}").await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable".into())
    );
    assert_eq!(
        client.policy("acme/3").await.status,
        StatusCode::NOT_FOUND,
        "what was refused does not show"
    );
    assert_eq!(writes(&sidecar).await["queued"], 3);
    heir.back().await;
    replayed(&sidecar).await;
    assert_eq!(
        client.put_policy("acme/3", "{}").await.status,
        StatusCode::CREATED
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn what_is_written_through_the_sidecar_counts_as_taken_into_memory() {
    let (heir, _state, sidecar) = pair(Level::Changes).await;
    let written = "policy_loads_total{source=\"write\",tenant_id=\"acme\"}";
    assert_eq!(sidecar.metric(written).await, 0.0);
    let client = sidecar.client();
    for version in 2..5 {
        client.put_policy("acme/a", format!("{{\"v\":{version}}}")).await;
    }
    assert_eq!(sidecar.metric(written).await, 3.0);
    client.delete_policy("acme/a").await;
    assert_eq!(sidecar.metric(written).await, 3.0);
    drop(heir);
    sidecar.stop().await;
}

/// A replica that lags behind, or what stands before a HEIR, answers the question for what HEIR made of a write.
#[tokio::test]
async fn a_wrong_answer_to_a_look_after_a_write_takes_nothing_from_it() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        for (status, body) in [(404, ""), (200, r#"{"v":1}"#), (200, "<html>welcome</html>")] {
            let what = format!("{level}, then {status} {body}");
            let heir = Heir::start(level).await;
            heir.client().put_policy("acme/a", r#"{"v":1}"#).await;
            heir.client().put_policy("acme/b", r#"{"v":1}"#).await;
            let faulty = Faulty::start(heir.address()).await;
            let sidecar = Sidecar::start(
                &faulty.url(),
                "refresh: {interval_ms: 100, long_poll_timeout_ms: 1000}",
            );
            sidecar.wait_for("live").await;
            let client = sidecar.client();
            client.policy("acme/a").await;
            client.policy("acme/b").await;
            let (mut written, mut answered) = (false, false);
            faulty.rule(move |seen| {
                if seen.is("PUT /api/v1/policies/acme/a") {
                    written = true;
                    // As a HEIR with tags of its own, whose answer says nothing of what was sent.
                    return Fault::Without("etag");
                }
                if written
                    && !answered
                    && seen.is("GET /api/v1/policies/acme/a")
                    && seen.header("if-none-match").is_empty()
                {
                    answered = true;
                    return Fault::Say(status, &[], body.to_owned());
                }
                Fault::None
            });
            let put = client.put_policy("acme/a", r#"{"v":2}"#).await;
            assert!(put.status.is_success(), "{what}: {}", put.text());
            assert_eq!(client.policy("acme/a").await.text(), r#"{"v":2}"#, "{what}");
            // Whatever a refresh that was under way brings.
            heir.client().put_policy("acme/b", r#"{"v":2}"#).await;
            eventually("a later change arrives", || async {
                client.policy("acme/b").await.text() == r#"{"v":2}"#
            })
            .await;
            assert_eq!(client.policy("acme/a").await.text(), r#"{"v":2}"#, "{what}");
            sidecar.stop().await;
        }
    }
}
