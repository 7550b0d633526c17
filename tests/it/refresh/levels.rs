//! Keeping memory like HEIR, whatever HEIR can do.

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Client, Fault, Faulty, Heir, Say, Scripted, Sidecar, eventually};

const SOON: &str =
    "refresh: {interval_ms: 50, long_poll_timeout_ms: 2000, negative_ttl_ms: 50, jitter_seed: 1}";

async fn admin(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/snapshot").await.json()
}

/// Waits until a lookup answers with this text, or with 404 for none.
async fn waits_for(client: &Client, name: &str, text: Option<&str>) {
    eventually(&format!("{name} is {text:?}"), || async {
        let answer = client.policy(name).await;
        match text {
            Some(text) => answer.status == 200 && answer.text() == text,
            None => answer.status == 404,
        }
    })
    .await;
}

#[tokio::test]
async fn every_level_is_detected_and_keeps_memory_like_heir() {
    for (level, name, coverage) in [
        (Level::Single, "single", "keys"),
        (Level::List, "list", "tenants"),
        (Level::Snapshot, "snapshot", "whole"),
        (Level::Changes, "changes", "whole"),
    ] {
        let heir = Heir::start(level).await;
        heir.client()
            .put_policy("acme/a", "{\"v\":1,\"weights\":{\"a\":1.0}}")
            .await;
        heir.client()
            .put_policy("acme/b", "{\"v\":1,\"weights\":{\"a\":1.0}}")
            .await;
        let sidecar = Sidecar::start(&heir.url(), SOON);
        sidecar.wait_for("live").await;
        let client = sidecar.client();
        assert_eq!(
            client.policy("acme/a").await.text(),
            "{\"v\":1,\"weights\":{\"a\":1.0}}",
            "{name}"
        );
        assert_eq!(
            client.policy("acme/b").await.text(),
            "{\"v\":1,\"weights\":{\"a\":1.0}}",
            "{name}"
        );
        eventually(&format!("the level is {name}"), || async {
            let page = admin(&sidecar).await;
            page["level"] == name && page["coverage"] == coverage
        })
        .await;
        let page = admin(&sidecar).await;
        assert_eq!(page["policies"], 2, "{name}");
        assert_eq!(page["tenants"], 1, "{name}");
        assert_eq!(page["source"], "heir", "{name}");
        assert_eq!(page["problems"], json!([]), "{name}");
        assert_eq!(page["refresh"]["state"], "live", "{name}");
        assert_eq!(page["heir"]["up"], true, "{name}");
        assert_eq!(page["heir"]["breaker"], "closed", "{name}");
        let revision = if coverage == "whole" {
            json!(2)
        } else {
            Value::Null
        };
        assert_eq!(page["revision"], revision, "{name}");

        heir.client()
            .put_policy("acme/a", "{\"v\":2,\"weights\":{\"a\":1.0}}")
            .await;
        waits_for(&client, "acme/a", Some("{\"v\":2,\"weights\":{\"a\":1.0}}")).await;
        heir.client()
            .put_policy("acme/c", "{\"v\":3,\"weights\":{\"a\":1.0}}")
            .await;
        waits_for(&client, "acme/c", Some("{\"v\":3,\"weights\":{\"a\":1.0}}")).await;
        heir.client().delete_policy("acme/b").await;
        waits_for(&client, "acme/b", None).await;
        let list = client.get("/api/v1/policies/acme").await;
        assert_eq!(list.status, StatusCode::OK);
        assert_eq!(
            list.json(),
            json!({"policies": [
                {"policy_id": "a", "v": 2, "weights": {"a": 1.0}},
                {"policy_id": "c", "v": 3, "weights": {"a": 1.0}},
            ]}),
            "{name}"
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn another_level_is_found_out_after_a_reconnect() {
    let levels = [
        (Level::Changes, "changes"),
        (Level::Single, "single"),
        (Level::List, "list"),
        (Level::Single, "single"),
        (Level::Snapshot, "snapshot"),
        (Level::List, "list"),
        (Level::Changes, "changes"),
    ];
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{}").await;
    let sidecar = Sidecar::start(&heir.url(), SOON);
    let client = sidecar.client();
    for (turn, (level, name)) in levels.into_iter().enumerate() {
        heir.gone().await;
        eventually("the outage is noticed", || async {
            admin(&sidecar).await["refresh"]["state"] != "live"
        })
        .await;
        heir.set_level(level);
        heir.back().await;
        eventually(&format!("the level is {name}, turn {turn}"), || async {
            let page = admin(&sidecar).await;
            page["level"] == name && page["refresh"]["state"] == "live"
        })
        .await;
        // What appears in HEIR now is found whatever the level before it claimed to know.
        let text = format!("{{\"v\":{turn}}}");
        heir.client()
            .put_policy(&format!("acme/new-{turn}"), text.clone())
            .await;
        waits_for(&client, &format!("acme/new-{turn}"), Some(&text)).await;
        heir.client().put_policy("acme/a", text.clone()).await;
        waits_for(&client, "acme/a", Some(&text)).await;
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_call_that_heir_does_not_have_is_not_asked_again_until_the_next_reconnect() {
    for status in [404, 405, 501] {
        let heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("acme/a", "{\"v\":1}").await;
        let faulty = Faulty::start(heir.address()).await;
        faulty.rule(move |seen| {
            if seen.is("GET /api/v1/changes") {
                Fault::Say(status, &[], "{}".into())
            } else {
                Fault::None
            }
        });
        let sidecar = Sidecar::start(&faulty.url(), SOON);
        eventually(&format!("{status}: the level is snapshot"), || async {
            admin(&sidecar).await["level"] == "snapshot"
        })
        .await;
        let polls = faulty.count("GET /api/v1/snapshot");
        eventually("some more polls", || async {
            faulty.count("GET /api/v1/snapshot") >= polls + 5
        })
        .await;
        assert_eq!(faulty.count("GET /api/v1/changes"), 1, "{status}");
        heir.client().put_policy("acme/a", "{\"v\":2}").await;
        waits_for(&sidecar.client(), "acme/a", Some("{\"v\":2}")).await;
        assert_eq!(faulty.count("GET /api/v1/changes"), 1, "{status}");

        // The connection breaks, and what comes back has changes.
        faulty.rule(|_| Fault::Refuse);
        sidecar.wait_for("degraded").await;
        faulty.rule(|_| Fault::None);
        eventually(&format!("{status}: the level is changes"), || async {
            let page = admin(&sidecar).await;
            page["level"] == "changes" && page["refresh"]["state"] == "live"
        })
        .await;
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_heir_without_snapshots_or_lists_is_asked_for_them_once() {
    for status in [404, 405, 501] {
        let heir = Heir::start(Level::Single).await;
        heir.client().put_policy("acme/a", "{\"v\":1}").await;
        let faulty = Faulty::start(heir.address()).await;
        faulty.rule(move |seen| {
            if seen.is("GET /api/v1/snapshot")
                || (seen.is("GET /api/v1/policies/acme") && !seen.path.contains("acme/"))
            {
                Fault::Say(status, &[], "{}".into())
            } else {
                Fault::None
            }
        });
        let sidecar = Sidecar::start(&faulty.url(), SOON);
        sidecar.wait_for("live").await;
        waits_for(&sidecar.client(), "acme/a", Some("{\"v\":1}")).await;
        eventually(&format!("{status}: the level is single"), || async {
            admin(&sidecar).await["level"] == "single"
        })
        .await;
        let polls = faulty.count("GET /api/v1/policies/acme/a");
        eventually("some more polls", || async {
            faulty.count("GET /api/v1/policies/acme/a") >= polls + 5
        })
        .await;
        assert_eq!(faulty.count("GET /api/v1/snapshot"), 1, "{status}");
        assert_eq!(
            faulty.count("GET /api/v1/policies/acme") - faulty.count("GET /api/v1/policies/acme/"),
            1,
            "{status}"
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn polls_are_conditional() {
    let heir = Heir::start(Level::Snapshot).await;
    heir.client().put_policy("acme/a", "{}").await;
    let faulty = Faulty::start(heir.address()).await;
    let sidecar = Sidecar::start(&faulty.url(), SOON);
    eventually("some polls", || async {
        faulty.count("GET /api/v1/snapshot") >= 5
    })
    .await;
    let polls: Vec<_> = faulty
        .seen()
        .into_iter()
        .filter(|seen| seen.is("GET /api/v1/snapshot"))
        .collect();
    let tag = heir
        .client()
        .get("/api/v1/snapshot")
        .await
        .header("etag")
        .to_owned();
    assert!(!tag.is_empty());
    assert_eq!(polls[0].header("if-none-match"), "");
    for poll in &polls[1..] {
        assert_eq!(poll.header("if-none-match"), tag);
    }
    let page = admin(&sidecar).await;
    let generation = page["generation"].as_u64();
    eventually("some more polls", || async {
        faulty.count("GET /api/v1/snapshot") >= 10
    })
    .await;
    assert_eq!(
        admin(&sidecar).await["generation"].as_u64(),
        generation,
        "304 publishes nothing"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn polls_of_single_policies_are_conditional_where_heir_has_tags() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    heir.on(
        "GET /api/v1/policies/acme/a",
        Say::Json(200, "etag: \"t1\"\r\n", "{\"v\":1}".into()),
    );
    let sidecar = Sidecar::start(&heir.url(), SOON);
    sidecar.wait_for("live").await;
    assert_eq!(sidecar.client().policy("acme/a").await.header("etag"), "\"t1\"");
    heir.on("GET /api/v1/policies/acme/a", Say::Json(304, "", String::new()));
    let conditional = |head: &String| {
        head.starts_with("GET /api/v1/policies/acme/a")
            && head.to_ascii_lowercase().contains("if-none-match: \"t1\"")
    };
    eventually("conditional polls", || async {
        heir.requests().iter().filter(|head| conditional(head)).count() >= 3
    })
    .await;
    assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":1}");
    sidecar.stop().await;
}

#[tokio::test]
async fn a_change_is_visible_within_the_long_poll() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{\"v\":0}").await;
    let faulty = Faulty::start(heir.address()).await;
    // A poll would come after an hour: what is seen sooner came by the long poll.
    let sidecar = Sidecar::start(
        &faulty.url(),
        "refresh: {interval_ms: 3600000, long_poll_timeout_ms: 20000, expired_after_ms: 86400000}",
    );
    sidecar.wait_for("live").await;
    eventually("the long poll waits", || async {
        faulty.count("GET /api/v1/changes?since=1&wait_ms=20000") == 1
    })
    .await;
    let client = sidecar.client();
    for turn in 1..=10 {
        let text = format!("{{\"v\":{turn}}}");
        heir.client().put_policy("acme/a", text.clone()).await;
        waits_for(&client, "acme/a", Some(&text)).await;
    }
    // Each change ended the long poll that was under way: none ran out and had to be repeated.
    let polls = faulty.count("GET /api/v1/changes");
    assert!((10..=11).contains(&polls), "{polls}");
    assert_eq!(faulty.count("GET /api/v1/snapshot"), 1);
    sidecar.stop().await;
}

#[tokio::test]
async fn a_local_file_does_not_hide_what_heir_has() {
    for level in [Level::Single, Level::List, Level::Snapshot, Level::Changes] {
        let heir = Heir::start(level).await;
        heir.client().put_policy("acme/a", "{\"from\":\"heir\"}").await;
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("acme")).unwrap();
        for id in ["a", "b"] {
            std::fs::write(
                folder.path().join(format!("acme/{id}.json")),
                "{\"from\":\"file\"}",
            )
            .unwrap();
        }
        let yaml = format!("policies_dir: {}\n{SOON}", folder.path().display());
        let sidecar = Sidecar::start(&heir.url(), &yaml);
        waits_for(&sidecar.client(), "acme/a", Some("{\"from\":\"heir\"}")).await;
        let file = sidecar.client().policy("acme/b").await;
        assert_eq!(
            (file.text(), file.header("x-beamline-source")),
            ("{\"from\":\"file\"}", "file")
        );
        sidecar.stop().await;
    }
}

/// What a HEIR answers that has one policy, at every level, where the tag is the same whatever the document is.
#[expect(
    clippy::unwrap_used,
    reason = "a helper of tests fails the test that called it"
)]
fn says(heir: &Scripted, level: &str, revision: u64, document: &str) {
    const TAG: &str = "\"same\"";
    for call in [
        "GET /api/v1/snapshot",
        "GET /api/v1/changes",
        "GET /api/v1/policies/acme HTTP",
    ] {
        heir.on(call, Say::Json(404, "", "{}".into()));
    }
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    heir.on(
        "GET /api/v1/policies/acme/a",
        Say::Json(200, "etag: \"same\"\r\n", document.to_owned()),
    );
    let key = json!({"tenant_id": "acme", "policy_id": "a", "revision": revision, "etag": TAG});
    let with = |more: Value| {
        let mut all = key.clone();
        all.as_object_mut()
            .unwrap()
            .extend(more.as_object().unwrap().clone());
        all
    };
    let policy: Value = serde_json::from_str(document).unwrap();
    match level {
        "list" => {
            let mut element = policy;
            element["policy_id"] = json!("a");
            let list = json!({"policies": [element], "etags": {"a": TAG}}).to_string();
            heir.on("GET /api/v1/policies/acme HTTP", Say::Json(200, "", list));
        }
        "snapshot" | "changes" => {
            let line = with(json!({"kind": "policy", "policy": policy}));
            let stream = format!(
                "{}\n{line}\n{}\n",
                json!({"kind": "snapshot", "format": 1, "revision": revision}),
                json!({"kind": "end", "count": 1})
            );
            heir.on("GET /api/v1/snapshot", Say::Json(200, "", stream));
            if level == "changes" {
                let put = with(json!({"kind": "policy", "op": "put", "policy": policy}));
                let nothing = json!({"from": revision, "to": revision, "changes": []});
                let news = json!({"from": revision - 1, "to": revision, "changes": [put]});
                let call = |since: u64| format!("GET /api/v1/changes?since={since}&");
                heir.on(&call(revision - 1), Say::Json(200, "", news.to_string()));
                heir.on(&call(revision), Say::Json(200, "", nothing.to_string()));
            }
        }
        _ => {}
    }
}

#[tokio::test]
async fn another_document_under_the_same_tag_is_taken_and_gets_a_tag_of_its_own() {
    for level in ["single", "list", "snapshot", "changes"] {
        let heir = Scripted::start().await;
        says(&heir, level, 2, "{\"v\":1}");
        let more = format!("{SOON}\n").replace("long_poll_timeout_ms: 2000", "long_poll_timeout_ms: 50");
        let sidecar = Sidecar::start(&heir.url(), &more);
        let client = sidecar.client();
        eventually(level, || async {
            client.policy("acme/a").await.text() == "{\"v\":1}"
        })
        .await;
        let first = client.policy("acme/a").await.header("etag").to_owned();
        assert_eq!(first, "\"same\"", "{level}");
        // What a list first shows under a tag that is known is taken for the document that is known: by then it has.
        let count = heir.requests().len();
        eventually("HEIR is asked again", || async {
            heir.requests().len() > count + 8
        })
        .await;
        let mut before = first;
        for version in 2..5 {
            let document = format!("{{\"v\":{version}}}");
            says(&heir, level, version + 1, &document);
            eventually(&format!("{level}: {document}"), || async {
                client.policy("acme/a").await.text() == document
            })
            .await;
            let now = client.policy("acme/a").await;
            let tag = now.header("etag").to_owned();
            assert_ne!(
                tag, before,
                "{level}: who has the version before must not be told that it is this one"
            );
            let asked = client
                .send(
                    http::Method::GET,
                    "/api/v1/policies/acme/a",
                    &[("if-none-match", &before)],
                    "",
                )
                .await
                .unwrap();
            assert_eq!(
                (asked.status.as_u16(), asked.text()),
                (200, &*document),
                "{level}"
            );
            // It stays what it is, however often HEIR says the same.
            let count = heir.requests().len();
            eventually("HEIR is asked again", || async {
                heir.requests().len() > count + 8
            })
            .await;
            let again = client.policy("acme/a").await;
            assert_eq!(
                (again.header("etag"), again.text()),
                (&*tag, &*document),
                "{level}"
            );
            before = tag;
        }
        sidecar.stop().await;
    }
}
