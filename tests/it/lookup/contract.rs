//! Lookups, as the Router makes them: the table of the contract, row by row.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::fs;

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};

use crate::support::{Answer, Heir, Say, Scripted, Sidecar, eventually};

const CHAT: &str = "/api/v1/policies/acme/chat";

/// The metric that counts single policies asked of HEIR.
const GETS: &str = "beamline_sidecar_heir_requests_total{call=\"get\",outcome=\"ok\"}";

/// A sidecar that asks HEIR once and quickly gives up.
fn impatient(heir: &str, more: &str) -> Sidecar {
    Sidecar::try_start(&format!(
        "{}heir: {{url: '{heir}', timeout_ms: 500, health_interval_ms: 200, breaker: {{failure_threshold: 1000}}, retry: {{max_attempts: 1}}}}\n{more}",
        crate::support::QUICK
    ))
    .unwrap()
}

fn age(answer: &Answer) -> u64 {
    answer.header("x-beamline-snapshot-age-ms").parse().unwrap()
}

#[tokio::test]
async fn a_policy_is_answered_byte_for_byte_with_what_is_known_about_it() {
    let heir = Heir::start(Level::Changes).await;
    let text = "{ \"version\": \"1.0\",\n  \"weights\": {\"a\": 50.0}, \"unknown\": [null] }\n";
    heir.client().put_policy("acme/chat", text).await;
    let sidecar = Sidecar::start(&heir.url(), "");
    sidecar.wait_for("live").await;
    let answer = sidecar.client().policy("acme/chat").await;
    assert_eq!(answer.status, StatusCode::OK);
    assert_eq!(answer.text(), text);
    assert_eq!(answer.header("content-type"), "application/json");
    assert_eq!(answer.header("x-beamline-source"), "heir");
    assert_eq!(answer.header("x-beamline-freshness"), "fresh");
    assert_eq!(answer.header("x-beamline-snapshot-revision"), "1");
    assert_eq!(answer.header("x-beamline-stale"), "");
    assert!(age(&answer) < 5_000);
    assert_eq!(
        answer.header("etag"),
        heir.client().policy("acme/chat").await.header("etag")
    );
    let tag = answer.header("etag").to_owned();
    for (list, status) in [
        (tag.clone(), StatusCode::NOT_MODIFIED),
        (format!("\"other\", {tag}"), StatusCode::NOT_MODIFIED),
        (format!("W/{tag}"), StatusCode::NOT_MODIFIED),
        ("*".to_owned(), StatusCode::NOT_MODIFIED),
        ("\"other\"".to_owned(), StatusCode::OK),
        ("nonsense".to_owned(), StatusCode::OK),
    ] {
        let again = sidecar.client().get_with(CHAT, &[("if-none-match", &list)]).await;
        assert_eq!(again.status, status, "{list}");
        assert_eq!(
            again.body.is_empty(),
            status == StatusCode::NOT_MODIFIED,
            "{list}"
        );
        assert_eq!(again.header("etag"), tag);
        assert_eq!(again.header("x-beamline-source"), "heir");
        assert_eq!(again.header("x-beamline-freshness"), "fresh");
        assert_eq!(again.header("x-beamline-snapshot-revision"), "1");
    }
    let head = sidecar.client().send(Method::HEAD, CHAT, &[], "").await.unwrap();
    assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
    assert_eq!(head.header("content-length"), text.len().to_string());
    assert_eq!(head.header("etag"), tag);
    sidecar.stop().await;
}

#[tokio::test]
async fn in_a_complete_snapshot_absence_is_an_answer_and_heir_is_not_asked() {
    for level in [Level::Changes, Level::Snapshot] {
        let mut heir = Heir::start(level).await;
        heir.client().put_policy("acme/chat", "{\"a\":1}").await;
        let sidecar = Sidecar::start(
            &heir.url(),
            "refresh: {interval_ms: 50, long_poll_timeout_ms: 100}",
        );
        sidecar.wait_for("live").await;
        for name in ["acme/other", "nobody/chat"] {
            let absent = sidecar.client().policy(name).await;
            assert_eq!(absent.status, StatusCode::NOT_FOUND, "{level} {name}");
            assert_eq!(absent.code(), "not_found");
            assert_eq!(absent.header("x-beamline-snapshot-revision"), "1");
            assert_eq!(absent.header("x-beamline-freshness"), "fresh");
            assert_eq!(absent.header("x-beamline-stale"), "");
            assert!(age(&absent) < 5_000);
        }
        // A deletion in HEIR is not a reason to serve an old copy.
        heir.client().delete_policy("acme/chat").await;
        eventually("the deleted policy is gone", || async {
            sidecar.client().policy("acme/chat").await.status == StatusCode::NOT_FOUND
        })
        .await;
        heir.client().put_policy("acme/chat", "{\"a\":2}").await;
        eventually("the new policy is there", || async {
            sidecar.client().policy("acme/chat").await.status == StatusCode::OK
        })
        .await;
        heir.gone().await;
        sidecar.wait_for("degraded").await;
        let kept = sidecar.client().policy("acme/chat").await;
        assert_eq!((kept.status, kept.text()), (StatusCode::OK, "{\"a\":2}"));
        assert_eq!(kept.header("x-beamline-freshness"), "fresh");
        let absent = sidecar.client().policy("acme/other").await;
        assert_eq!(absent.status, StatusCode::NOT_FOUND);
        assert_eq!(absent.header("x-beamline-stale"), "true");
        assert_eq!(sidecar.metric(GETS).await, 0.0, "{level}");
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn what_only_heir_can_know_is_asked_for_once_and_kept() {
    for level in [Level::List, Level::Single] {
        let mut heir = Heir::start(level).await;
        let text = "{\"x\":\r\n 1.50}";
        heir.client().put_policy("acme/chat", text).await;
        let sidecar = Sidecar::start(&heir.url(), "refresh: {interval_ms: 60000}");
        sidecar.wait_for("live").await;
        for _ in 0..3 {
            let answer = sidecar.client().policy("acme/chat").await;
            assert_eq!((answer.status, answer.text()), (StatusCode::OK, text), "{level}");
            assert_eq!(answer.header("x-beamline-source"), "heir");
            assert_eq!(answer.header("x-beamline-freshness"), "fresh");
            assert_eq!(answer.header("x-beamline-snapshot-revision"), "none");
            assert_ne!(answer.header("etag"), "");
        }
        assert_eq!(sidecar.metric(GETS).await, 1.0, "{level}");
        assert_eq!(sidecar.client().policy("acme/other").await.code(), "not_found");
        heir.gone().await;
        // A request finds out that HEIR is away; what was seen is served, what was not seen is not made up.
        let unknown = sidecar.client().policy("new/one").await;
        assert_eq!(unknown.status, StatusCode::SERVICE_UNAVAILABLE, "{level}");
        assert_eq!(unknown.code(), "heir_unavailable");
        assert!(unknown.header("retry-after").parse::<u64>().unwrap() >= 1);
        assert_eq!(sidecar.client().policy("acme/chat").await.text(), text);
        heir.back().await;
        heir.client().put_policy("new/one", "{}").await;
        eventually("a policy that could not be asked for is found", || async {
            sidecar.client().policy("new/one").await.status == StatusCode::OK
        })
        .await;
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn many_who_wait_for_one_policy_are_one_request() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    let get = "GET /api/v1/policies/acme/chat ";
    // While HEIR is silent all of them wait, so what is counted is the sharing and not the memory.
    heir.on(get, Say::Silence);
    let sidecar = impatient(&heir.url(), "refresh: {interval_ms: 60000}");
    sidecar.wait_for("live").await;
    let ask = || async {
        let client = sidecar.client();
        let asked: Vec<_> = (0..30)
            .map(|_| {
                let client = client.clone();
                tokio::spawn(async move { client.policy("acme/chat").await })
            })
            .collect();
        let mut answers = Vec::new();
        for answer in asked {
            answers.push(answer.await.unwrap());
        }
        answers
    };
    for answer in ask().await {
        // To its caller, a HEIR that hangs is away like any other.
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(answer.code(), "heir_unavailable");
        assert_eq!(answer.header("retry-after"), "1");
    }
    assert_eq!(heir.count(get), 1);
    heir.on(get, Say::Json(200, "", "{\"a\":1}".into()));
    for answer in ask().await {
        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "{\"a\":1}"));
    }
    assert_eq!(heir.count(get), 2);
    sidecar.stop().await;
}

#[tokio::test]
async fn heirs_no_is_remembered_for_its_time_and_no_longer() {
    for (ttl, asked) in [(600_000, 1), (0, 3)] {
        let heir = Scripted::start().await;
        heir.on("GET /health", Say::Json(200, "", "{}".into()));
        let sidecar = impatient(
            &heir.url(),
            &format!("refresh: {{interval_ms: 60000, negative_ttl_ms: {ttl}}}"),
        );
        sidecar.wait_for("live").await;
        for _ in 0..3 {
            let answer = sidecar.client().policy("acme/chat").await;
            assert_eq!(answer.code(), "not_found");
            assert_eq!(answer.header("x-beamline-stale"), "");
        }
        assert_eq!(heir.count("GET /api/v1/policies/acme/chat "), asked, "{ttl}");
        // It is the pair that is absent, not the name.
        sidecar.client().policy("other/chat").await;
        assert_eq!(heir.count("GET /api/v1/policies/other/chat "), 1);
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn an_answer_grows_stale_and_expires_and_is_then_served_or_refused() {
    for refuse in [false, true] {
        let mut heir = Heir::start(Level::Changes).await;
        heir.client().put_policy("acme/chat", "{}").await;
        let when = if refuse { "refuse" } else { "serve" };
        let sidecar = Sidecar::start(
            &heir.url(),
            &format!(
                "refresh: {{interval_ms: 50, long_poll_timeout_ms: 50, stale_after_ms: 700, expired_after_ms: 1500, when_expired: {when}}}"
            ),
        );
        sidecar.wait_for("live").await;
        let client = sidecar.client();
        heir.gone().await;
        let freshness = |wanted: &'static str| {
            let client = client.clone();
            move || {
                let client = client.clone();
                async move {
                    let answer = client.policy("acme/chat").await;
                    let found = answer.header("x-beamline-freshness") == wanted;
                    if found {
                        assert_eq!((answer.status, answer.text()), (StatusCode::OK, "{}"));
                        let expected = match wanted {
                            "fresh" => 0..700,
                            "stale" => 700..1_500,
                            _ => 1_500..u64::MAX,
                        };
                        assert!(expected.contains(&age(&answer)), "{}", age(&answer));
                    }
                    found
                }
            }
        };
        eventually("the answer is stale", freshness("stale")).await;
        if refuse {
            eventually("lookups are refused", || async {
                client.policy("acme/chat").await.status == StatusCode::SERVICE_UNAVAILABLE
            })
            .await;
            // What is absent may exist by now: no 404 of an expired snapshot either.
            for name in ["acme/chat", "acme/other"] {
                let refused = client.policy(name).await;
                assert_eq!(refused.code(), "policy_expired", "{name}");
                assert_eq!(refused.header("retry-after"), "1");
                assert!(refused.json()["error"]["details"]["age_ms"].as_u64().unwrap() >= 1_500);
            }
            let health = client.get("/health").await;
            assert_eq!(health.status, StatusCode::SERVICE_UNAVAILABLE);
            sidecar.wait_for("not_ready").await;
        } else {
            eventually("the answer is expired", freshness("expired")).await;
            let absent = client.policy("acme/other").await;
            assert_eq!(absent.status, StatusCode::NOT_FOUND);
            assert_eq!(absent.header("x-beamline-freshness"), "expired");
            assert_eq!(absent.header("x-beamline-stale"), "true");
            assert_eq!(client.get("/health").await.status, StatusCode::OK);
        }
        heir.back().await;
        eventually("the answer is fresh again", freshness("fresh")).await;
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_local_file_serves_until_heir_has_that_policy() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("acme")).unwrap();
    fs::write(folder.path().join("acme/chat.json"), "{\"from\":\"file\"}").unwrap();
    fs::write(folder.path().join("acme/local.json"), "{\"only\":\"file\"}\n").unwrap();
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{\"from\":\"heir\"}").await;
    heir.gone().await;
    let sidecar = Sidecar::start(&heir.url(), &format!("policies_dir: {}", folder.path().display()));
    sidecar.wait_for("degraded").await;
    let client = sidecar.client();
    let file = client.policy("acme/chat").await;
    assert_eq!(
        (file.status, file.text()),
        (StatusCode::OK, "{\"from\":\"file\"}")
    );
    assert_eq!(file.header("x-beamline-source"), "file");
    assert_eq!(file.header("x-beamline-freshness"), "stale");
    assert_eq!(file.header("x-beamline-snapshot-revision"), "none");
    assert_eq!(client.get("/health").await.status, StatusCode::OK);
    assert_eq!(client.policy("acme/other").await.code(), "heir_unavailable");
    heir.back().await;
    sidecar.wait_for("live").await;
    let hidden = client.policy("acme/chat").await;
    assert_eq!(hidden.text(), "{\"from\":\"heir\"}");
    assert_eq!(hidden.header("x-beamline-source"), "heir");
    let local = client.policy("acme/local").await;
    assert_eq!(local.text(), "{\"only\":\"file\"}\n");
    assert_eq!(local.header("x-beamline-source"), "file");
    assert_eq!(local.header("x-beamline-freshness"), "fresh");
    heir.client().delete_policy("acme/chat").await;
    eventually("the file is no longer hidden", || async {
        client.policy("acme/chat").await.header("x-beamline-source") == "file"
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn without_a_heir_the_directory_is_the_truth() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("acme")).unwrap();
    fs::write(folder.path().join("acme/chat.json"), "{}").unwrap();
    let sidecar = Sidecar::try_start(&format!(
        "{}heir_policy_store_enabled: false\nrefresh: {{stale_after_ms: 1, expired_after_ms: 1, when_expired: refuse}}\npolicies_dir: {}",
        crate::support::QUICK,
        folder.path().display()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    let client = sidecar.client();
    let answer = client.policy("acme/chat").await;
    assert_eq!((answer.status, answer.text()), (StatusCode::OK, "{}"));
    assert_eq!(answer.header("x-beamline-source"), "file");
    assert_eq!(answer.header("x-beamline-freshness"), "fresh");
    assert_eq!(age(&answer), 0);
    let absent = client.policy("acme/other").await;
    assert_eq!(
        (absent.status, absent.header("x-beamline-stale")),
        (StatusCode::NOT_FOUND, "")
    );
    let list = client.get("/api/v1/policies/acme").await;
    assert_eq!(list.text(), "{\"policies\":[{\"policy_id\":\"chat\"}]}");
    assert_eq!(list.header("warning"), "");
    let forwarded = client.get("/api/v1/extensions").await;
    assert_eq!(
        (forwarded.status, forwarded.code().as_str()),
        (StatusCode::NOT_FOUND, "not_found")
    );
    assert_eq!(client.get("/health").await.status, StatusCode::OK);
    sidecar.stop().await;
}
