//! What HEIR can say wrong, and what memory makes of it.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    fmt::Write,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Fault, Faulty, Heir, Say, Scripted, Sidecar, eventually};

const SOON: &str = "refresh: {interval_ms: 50, long_poll_timeout_ms: 2000, jitter_seed: 1}";
/// The next refresh comes when it is asked for.
const NEVER: &str = "refresh: {interval_ms: 3600000, long_poll_timeout_ms: 50}";

async fn admin(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/snapshot").await.json()
}

/// A snapshot stream of policies `t/0` to `t/{count - 1}`; `document` makes their texts.
fn stream(revision: u64, count: usize, document: impl Fn(usize) -> Option<String>) -> String {
    let mut text = format!("{{\"kind\":\"snapshot\",\"format\":1,\"revision\":{revision}}}\n");
    let mut objects = 0;
    for id in 0..count {
        if let Some(document) = document(id) {
            objects += 1;
            writeln!(
                text,
                "{{\"kind\":\"policy\",\"tenant_id\":\"t\",\"policy_id\":\"{id}\",\"policy\":{document}}}"
            )
            .unwrap();
        }
    }
    writeln!(text, "{{\"kind\":\"end\",\"count\":{objects}}}").unwrap();
    text
}

#[tokio::test]
async fn hostile_31_one_bad_policy_in_ten_thousand_spoils_only_itself() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    heir.on(
        "GET /api/v1/snapshot",
        Say::Json(
            200,
            "",
            stream(1, 10_000, |_| {
                Some("{\"weights\":{\"a\":1.0},\"timeout_ms\":1}".into())
            }),
        ),
    );
    let sidecar = Sidecar::start(&heir.url(), "refresh: {interval_ms: 200}");
    sidecar.wait_for("live").await;
    let second = stream(2, 10_001, |id| {
        Some(match id {
            4_711 | 10_000 => "[\"no policy\"]".into(),
            _ => format!("{{\"weights\":{{\"a\":1.0}},\"timeout_ms\":2,\"id\":{id}}}"),
        })
    });
    heir.on("GET /api/v1/snapshot", Say::Json(200, "", second));
    eventually("the second snapshot is active", || async {
        admin(&sidecar).await["revision"] == 2
    })
    .await;
    let client = sidecar.client();
    assert_eq!(
        client.policy("t/4711").await.text(),
        "{\"weights\":{\"a\":1.0},\"timeout_ms\":1}",
        "its last good version"
    );
    assert_eq!(
        client.policy("t/10000").await.status,
        StatusCode::NOT_FOUND,
        "it never had one"
    );
    for id in [0, 4_710, 4_712, 9_999] {
        assert_eq!(
            client.policy(&format!("t/{id}")).await.text(),
            format!("{{\"weights\":{{\"a\":1.0}},\"timeout_ms\":2,\"id\":{id}}}")
        );
    }
    let page = admin(&sidecar).await;
    assert_eq!(
        (&page["policies"], &page["problem_count"]),
        (&json!(10_000), &json!(2))
    );
    let named: Vec<_> = page["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| (p["tenant_id"].as_str().unwrap(), p["policy_id"].as_str().unwrap()))
        .collect();
    assert_eq!(named, [("t", "10000"), ("t", "4711")]);
    assert!(
        page["problems"][0]["problems"]
            .as_array()
            .is_some_and(|problems| !problems.is_empty())
    );
    assert_eq!(page["ready"]["state"], "live");

    heir.on(
        "GET /api/v1/snapshot",
        Say::Json(
            200,
            "",
            stream(3, 10_000, |_| {
                Some("{\"weights\":{\"a\":1.0},\"timeout_ms\":3}".into())
            }),
        ),
    );
    eventually("it is mended", || async {
        admin(&sidecar).await["problem_count"] == 0
    })
    .await;
    assert_eq!(
        client.policy("t/4711").await.text(),
        "{\"weights\":{\"a\":1.0},\"timeout_ms\":3}"
    );
    sidecar.stop().await;
}

/// A HEIR with a hundred policies whose deletions are seen at once or not at all, because reads fail meanwhile.
async fn hundred(level: Level) -> (Heir, Faulty, Arc<AtomicBool>) {
    let heir = Heir::start(level).await;
    for id in 0..100 {
        heir.client().put_policy(&format!("t/{id}"), "{}").await;
    }
    let faulty = Faulty::start(heir.address()).await;
    let closed = Arc::new(AtomicBool::new(false));
    let is_closed = closed.clone();
    faulty.rule(move |_| {
        if is_closed.load(SeqCst) {
            Fault::Refuse
        } else {
            Fault::None
        }
    });
    (heir, faulty, closed)
}

async fn delete(heir: &Heir, faulty: &Faulty, closed: &AtomicBool, ids: std::ops::Range<usize>) {
    closed.store(true, SeqCst);
    // A long poll that is under way would see the first of them.
    eventually("no read is under way", || async { faulty.is_idle() }).await;
    for id in ids {
        assert_eq!(
            heir.client().delete_policy(&format!("t/{id}")).await.status,
            StatusCode::NO_CONTENT
        );
    }
    closed.store(false, SeqCst);
}

#[tokio::test]
async fn hostile_32_a_snapshot_that_lost_most_is_held_until_an_operator_confirms_it() {
    for level in [Level::List, Level::Snapshot, Level::Changes] {
        let (heir, faulty, closed) = hundred(level).await;
        let sidecar = Sidecar::start(&faulty.url(), &format!("{NEVER}\n"));
        sidecar.wait_for("live").await;
        let (client, operator) = (sidecar.client(), sidecar.admin());
        assert_eq!(client.policy("t/0").await.status, StatusCode::OK);
        assert_eq!(
            client.get("/api/v1/policies/t").await.json()["policies"]
                .as_array()
                .unwrap()
                .len(),
            100
        );
        delete(&heir, &faulty, &closed, 0..90).await;
        eventually("it is held", || async {
            operator.post("/admin/refresh", "").await.status == StatusCode::CONFLICT
        })
        .await;
        // Nor is the guard talked over by asking often: neither by an operator nor by the Router's lists.
        for _ in 0..3 {
            assert_eq!(
                operator.post("/admin/refresh", "").await.code(),
                "conflict",
                "{level}"
            );
            let list = client.get("/api/v1/policies/t").await;
            assert_eq!(list.json()["policies"].as_array().unwrap().len(), 100, "{level}");
            assert_eq!(list.header("x-beamline-stale"), "true", "{level}");
        }
        let page = admin(&sidecar).await;
        assert_eq!(
            (&page["refresh"]["state"], &page["ready"]["state"]),
            (&json!("held"), &json!("degraded")),
            "{level}"
        );
        assert!(
            page["refresh"]["last_error"]
                .as_str()
                .unwrap()
                .contains("would remove 90 of 100 policies"),
            "{page}"
        );
        assert_eq!(client.policy("t/0").await.status, StatusCode::OK);
        let confirmed = operator.post("/admin/refresh?confirm=true", "").await;
        assert_eq!(
            (confirmed.status, &confirmed.json()["outcome"]),
            (StatusCode::OK, &json!("changed")),
            "{level}"
        );
        assert_eq!(
            client.policy("t/0").await.status,
            StatusCode::NOT_FOUND,
            "{level}"
        );
        assert_eq!(client.policy("t/95").await.status, StatusCode::OK, "{level}");
        assert_eq!(admin(&sidecar).await["ready"]["state"], "live", "{level}");
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn hostile_32_an_empty_heir_is_believed_when_it_says_so_again() {
    for level in [Level::List, Level::Snapshot, Level::Changes] {
        let (heir, faulty, closed) = hundred(level).await;
        let sidecar = Sidecar::start(
            &faulty.url(),
            "refresh: {interval_ms: 1000, long_poll_timeout_ms: 50}",
        );
        sidecar.wait_for("live").await;
        assert_eq!(
            sidecar.client().get("/api/v1/policies/t").await.status,
            StatusCode::OK
        );
        delete(&heir, &faulty, &closed, 0..100).await;
        eventually("it is held", || async {
            admin(&sidecar).await["refresh"]["state"] == "held"
        })
        .await;
        assert_eq!(
            sidecar.client().policy("t/0").await.status,
            StatusCode::OK,
            "{level}"
        );
        eventually("it is confirmed", || async {
            let page = admin(&sidecar).await;
            page["policies"] == 0 && page["refresh"]["state"] == "live"
        })
        .await;
        assert!(
            sidecar
                .metric("beamline_sidecar_refresh_total{outcome=\"held\"}")
                .await
                >= 0.0
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn hostile_32_real_deletions_pass_and_many_small_ones_are_one() {
    for level in [Level::List, Level::Snapshot, Level::Changes] {
        let (heir, faulty, closed) = hundred(level).await;
        let sidecar = Sidecar::start(&faulty.url(), NEVER);
        sidecar.wait_for("live").await;
        assert_eq!(
            sidecar.client().get("/api/v1/policies/t").await.status,
            StatusCode::OK
        );
        delete(&heir, &faulty, &closed, 0..50).await;
        eventually("half are gone at the first answer", || async {
            let refreshed = sidecar.admin().post("/admin/refresh", "").await;
            assert_ne!(refreshed.status, StatusCode::CONFLICT, "{level}");
            let list = sidecar.client().get("/api/v1/policies/t").await;
            list.json()["policies"].as_array().unwrap().len() == 50
        })
        .await;
        // More than half within a few minutes are many, in however many steps.
        delete(&heir, &faulty, &closed, 50..75).await;
        eventually("the rest is held", || async {
            sidecar.admin().post("/admin/refresh", "").await.status == StatusCode::CONFLICT
        })
        .await;
        assert_eq!(admin(&sidecar).await["policies"], 50, "{level}");
        let confirmed = sidecar.admin().post("/admin/refresh?confirm=true", "").await;
        assert_eq!(confirmed.status, StatusCode::OK, "{level}");
        assert_eq!(admin(&sidecar).await["policies"], 25, "{level}");
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn hostile_33_not_modified_cannot_follow_a_failed_activation() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    let good = |revision, version: u8| stream(revision, 30, |_| Some(format!("{{\"v\":{version}}}")));
    heir.on(
        "GET /api/v1/snapshot",
        Say::Json(200, "etag: \"one\"\r\n", good(1, 1)),
    );
    let sidecar = Sidecar::start(&heir.url(), SOON);
    sidecar.wait_for("live").await;
    let polled = |tag: &str| {
        let tag = format!("if-none-match: \"{tag}\"");
        heir.requests()
            .iter()
            .filter(|head| {
                head.starts_with("GET /api/v1/snapshot") && head.to_ascii_lowercase().contains(&tag)
            })
            .count()
    };
    eventually("the first tag is used", || async { polled("one") >= 2 }).await;
    // The second version breaks off before its end line; the third is held back.
    let second = good(2, 2);
    let broken = second[..second.rfind("{\"kind\":\"end\"").unwrap()].to_owned();
    heir.on(
        "GET /api/v1/snapshot",
        Say::Json(200, "etag: \"two\"\r\n", broken),
    );
    sidecar.wait_for("degraded").await;
    let polls = heir.count("GET /api/v1/snapshot");
    eventually("more polls", || async {
        heir.count("GET /api/v1/snapshot") > polls + 3
    })
    .await;
    assert_eq!(polled("two"), 0);
    assert_eq!(sidecar.client().policy("t/7").await.text(), "{\"v\":1}");
    heir.on(
        "GET /api/v1/snapshot",
        Say::Json(200, "etag: \"two\"\r\n", second),
    );
    eventually("the second version is active", || async {
        sidecar.client().policy("t/7").await.text() == "{\"v\":2}"
    })
    .await;
    eventually("and now its tag is used", || async { polled("two") > 0 }).await;
    sidecar.stop().await;
}
