//! What HEIR says is not always what HEIR has: an ingress that answers for it, a level that went, a tenant or a policy
//! that cannot be read. Memory loses nothing by it, and says how old it really is.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::{Value, json};

use crate::support::{Fault, Faulty, Heir, Seen, Sidecar, eventually};

const LEVELS: [Level; 4] = [Level::Single, Level::List, Level::Snapshot, Level::Changes];
const GOOD: &str = r#"{"weights":{"a":1.0}}"#;
const BETTER: &str = r#"{"weights":{"b":1.0}}"#;
const SOON: &str = "refresh: {interval_ms: 50, long_poll_timeout_ms: 200, jitter_seed: 1}";

async fn admin(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/snapshot").await.json()
}

fn not_found() -> Fault {
    Fault::Say(
        404,
        &[("content-type", "text/html")],
        "<h1>404 not found</h1>".into(),
    )
}

/// A HEIR of this level behind a proxy, with these many tenants of these many policies each, and a sidecar that has
/// looked all of them up.
async fn known(level: Level, tenants: usize, policies: usize, yaml: &str) -> (Heir, Faulty, Sidecar) {
    let heir = Heir::start(level).await;
    for tenant in 0..tenants {
        for policy in 0..policies {
            let put = heir
                .client()
                .put_policy(&format!("t{tenant}/p{policy}"), GOOD)
                .await;
            assert_eq!(put.status, StatusCode::CREATED);
        }
    }
    let faulty = Faulty::start(heir.address()).await;
    let sidecar = Sidecar::start(&faulty.url(), yaml);
    sidecar.wait_for("live").await;
    for tenant in 0..tenants {
        for policy in 0..policies {
            let found = sidecar.client().policy(&format!("t{tenant}/p{policy}")).await;
            assert_eq!(found.status, StatusCode::OK, "{level}");
        }
    }
    (heir, faulty, sidecar)
}

/// Waits until HEIR was asked more often than now, by calls other than for its health.
async fn asked_again(faulty: &Faulty, times: usize) {
    let asked = || faulty.seen().len() - faulty.count("GET /health");
    let before = asked();
    eventually("HEIR is asked again", || async { asked() >= before + times }).await;
}

async fn all_are_there(sidecar: &Sidecar, tenants: usize, policies: usize, what: &str) {
    for tenant in 0..tenants {
        for policy in 0..policies {
            let found = sidecar.client().policy(&format!("t{tenant}/p{policy}")).await;
            assert_eq!(found.status, StatusCode::OK, "{what}: t{tenant}/p{policy}");
        }
    }
}

#[tokio::test]
async fn hostile_32_a_heir_that_answers_404_to_everything_is_away_and_has_deleted_nothing() {
    for level in LEVELS {
        for but_health in [false, true] {
            let folder = tempfile::tempdir().unwrap();
            let yaml = format!("{SOON}\nstate_dir: {}", folder.path().display());
            // Once more than the guard looks at, and once fewer.
            for (tenants, policies) in [(4, 10), (2, 3)] {
                let what = format!("{level}, {tenants} tenants, /health too: {}", !but_health);
                let (_heir, faulty, sidecar) = known(level, tenants, policies, &yaml).await;
                faulty.rule(move |seen: &Seen| {
                    if but_health && seen.is("GET /health") {
                        Fault::None
                    } else {
                        not_found()
                    }
                });
                sidecar.wait_for("degraded").await;
                asked_again(&faulty, 3 * tenants * policies).await;
                all_are_there(&sidecar, tenants, policies, &what).await;
                let page = admin(&sidecar).await;
                assert_eq!(page["policies"], tenants * policies, "{what}");
                assert!(page["refresh"]["last_error"].is_string(), "{what}: {page}");
                // Nor is anything gone after a restart with nobody to ask.
                sidecar.stop().await;
                let again = Sidecar::start("http://127.0.0.1:9", &yaml);
                all_are_there(&again, tenants, policies, &what).await;
                again.stop().await;
                std::fs::remove_dir_all(folder.path()).unwrap();
                std::fs::create_dir(folder.path()).unwrap();
            }
        }
    }
}

#[tokio::test]
async fn a_heir_that_comes_back_plainer_deletes_nothing_and_a_real_deletion_is_seen() {
    for (before, after) in [
        (Level::Changes, Level::Single),
        (Level::Changes, Level::List),
        (Level::Snapshot, Level::Single),
        (Level::List, Level::Single),
    ] {
        let (mut heir, _faulty, sidecar) = known(before, 3, 10, SOON).await;
        heir.gone().await;
        heir.set_level(after);
        heir.back().await;
        eventually("the other level is found", || async {
            let page = admin(&sidecar).await;
            page["level"] == after.as_str() && page["refresh"]["state"] == "live"
        })
        .await;
        all_are_there(&sidecar, 3, 10, &format!("{before} to {after}")).await;
        heir.client().delete_policy("t1/p3").await;
        eventually("a deletion in HEIR is seen", || async {
            sidecar.client().policy("t1/p3").await.status == StatusCode::NOT_FOUND
        })
        .await;
        assert_eq!(admin(&sidecar).await["policies"], 29);
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn hostile_32_many_small_disappearances_are_one_large_one() {
    for level in [Level::Single, Level::List, Level::Changes] {
        let yaml = "refresh: {interval_ms: 600000, long_poll_timeout_ms: 50, jitter_seed: 1}";
        let (heir, _faulty, sidecar) = known(level, 12, 10, yaml).await;
        let mut answers = Vec::new();
        // One is left: a HEIR that has nothing of what it had is another matter.
        for tenant in 0..11 {
            for policy in 0..10 {
                heir.client().delete_policy(&format!("t{tenant}/p{policy}")).await;
            }
            answers.push(sidecar.admin().post("/admin/refresh", "").await.status);
        }
        let page = admin(&sidecar).await;
        assert!(page["policies"].as_u64().unwrap() >= 60, "{level}: {page}");
        assert!(answers.contains(&StatusCode::CONFLICT), "{level}: {answers:?}");
        assert_eq!(page["refresh"]["state"], "held", "{level}");
        let confirmed = sidecar.admin().post("/admin/refresh?confirm=true", "").await;
        assert_eq!(confirmed.status, StatusCode::OK, "{level}: {}", confirmed.text());
        assert_eq!(admin(&sidecar).await["policies"], 10, "{level}");
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn hostile_43_what_heir_refuses_to_say_is_not_confirmed() {
    for (status, headers) in [
        (401, &[][..]),
        (403, &[][..]),
        (302, &[("location", "http://127.0.0.1:9/login")][..]),
    ] {
        for level in LEVELS {
            let yaml = "refresh: {interval_ms: 50, long_poll_timeout_ms: 200, stale_after_ms: 1000, \
                        expired_after_ms: 3000, when_expired: refuse}";
            let (_heir, faulty, sidecar) = known(level, 3, 5, yaml).await;
            faulty.rule(move |seen: &Seen| {
                if seen.is("GET /health") {
                    Fault::None
                } else {
                    Fault::Say(status, headers, "{}".into())
                }
            });
            eventually(&format!("{status} at {level}: it expires"), || async {
                sidecar.client().policy("t0/p0").await.code() == "policy_expired"
            })
            .await;
            let page = admin(&sidecar).await;
            let error = page["refresh"]["last_error"].as_str().unwrap().to_owned();
            assert!(error.contains(&status.to_string()), "{level}: {error}");
            let reason = sidecar.admin().get("/ready").await;
            assert!(
                reason.text().contains(&status.to_string()),
                "{status} at {level}: {}",
                reason.text()
            );
            faulty.rule(|_| Fault::None);
            sidecar.wait_for("live").await;
            assert_eq!(sidecar.client().policy("t0/p0").await.status, StatusCode::OK);
            sidecar.stop().await;
        }
    }
}

#[tokio::test]
async fn an_age_counts_from_when_heir_was_asked() {
    let (_heir, faulty, sidecar) = known(Level::Single, 3, 3, SOON).await;
    let passes = Arc::new(AtomicUsize::new(0));
    let counted = passes.clone();
    faulty.rule(move |seen: &Seen| {
        if seen.is("GET /api/v1/policies/") {
            counted.fetch_add(1, SeqCst);
            return Fault::Late(Duration::from_millis(100));
        }
        Fault::None
    });
    // Two whole passes and the beginning of a third: what is known is now at least as old as one pass takes.
    for _ in 0..3 {
        let until = passes.load(SeqCst) / 9 * 9 + 9;
        eventually("a pass ends", || async { passes.load(SeqCst) > until }).await;
        let age: u64 = sidecar
            .client()
            .policy("t0/p0")
            .await
            .header("x-beamline-snapshot-age-ms")
            .parse()
            .unwrap();
        assert!(age >= 900, "{age} ms, although nine policies take 0.1 s each");
    }
    sidecar.stop().await;
}

/// HEIR refuses one policy at `single`, one tenant at `list`: the others are refreshed and confirmed.
#[tokio::test]
async fn one_tenant_or_policy_that_heir_refuses_holds_up_no_other() {
    for (level, refused) in [
        (Level::Single, "GET /api/v1/policies/t1/p1"),
        (Level::List, "GET /api/v1/policies/t1"),
    ] {
        let yaml = "refresh: {interval_ms: 50, stale_after_ms: 1500, jitter_seed: 1}";
        let (heir, faulty, sidecar) = known(level, 3, 3, yaml).await;
        faulty.rule(move |seen: &Seen| {
            if seen.is(refused) {
                Fault::Say(403, &[], "{}".into())
            } else {
                Fault::None
            }
        });
        heir.client().put_policy("t0/p0", r#"{"v":2}"#).await;
        heir.client().put_policy("t2/p2", r#"{"v":2}"#).await;
        let client = sidecar.client();
        for name in ["t0/p0", "t2/p2"] {
            eventually(&format!("{level}: {name} is refreshed"), || async {
                client.policy(name).await.text() == r#"{"v":2}"#
            })
            .await;
        }
        eventually(&format!("{level}: the refused one gets stale"), || async {
            client.policy("t1/p1").await.header("x-beamline-freshness") == "stale"
        })
        .await;
        assert_eq!(
            client.policy("t0/p0").await.header("x-beamline-freshness"),
            "fresh",
            "{level}"
        );
        let page = admin(&sidecar).await;
        let error = page["refresh"]["last_error"].as_str().unwrap();
        assert!(error.contains("t1") && error.contains("403"), "{level}: {error}");
        assert_eq!(page["ready"]["state"], "degraded", "{level}");
        faulty.rule(|_| Fault::None);
        eventually(&format!("{level}: all is well"), || async {
            client.policy("t1/p1").await.header("x-beamline-freshness") == "fresh"
        })
        .await;
        sidecar.wait_for("live").await;
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn a_policy_that_is_too_long_is_named_and_holds_up_no_other() {
    let yaml = format!("{SOON}\nlimits: {{max_body_bytes: 2000}}");
    for level in LEVELS {
        let (heir, _faulty, sidecar) = known(level, 3, 3, &yaml).await;
        let long = json!({"metadata": {"text": "x".repeat(3_000)}}).to_string();
        heir.client().put_policy("t1/p1", long).await;
        heir.client().put_policy("t2/p2", BETTER).await;
        eventually(&format!("{level}: another one is refreshed"), || async {
            sidecar.client().policy("t2/p2").await.text() == BETTER
        })
        .await;
        eventually(&format!("{level}: it is named"), || async {
            let page = admin(&sidecar).await;
            page["problem_count"] == 1
                && page["problems"][0]["tenant_id"] == "t1"
                && page["problems"][0]["policy_id"] == "p1"
        })
        .await;
        assert_eq!(
            sidecar.client().policy("t1/p1").await.text(),
            GOOD,
            "its last good version"
        );
        sidecar.wait_for("live").await;
        sidecar.stop().await;
    }
}

/// A HEIR whose lists are of another form: bare documents, ids of other types or with the tenant in them.
#[tokio::test]
async fn a_list_that_does_not_name_its_policies_removes_none() {
    const TENANT: &str = "GET /api/v1/policies/t0";
    let forms = [
        r#"[{"weights":{"a":1.0}},{"weights":{"a":1.0}}]"#,
        r#"{"policies":[{"policy_id":7},{"policy_id":null}]}"#,
        r#"[{"policy_id":"t0/p0","weights":{"a":1.0}},{"policy_id":"t0/p1","weights":{"a":1.0}}]"#,
        r#"["p0","p1"]"#,
        r#"[{"policy_id":"p0","weights":{"a":1.0}},{"policy":{"policy_id":"p1"}}]"#,
    ];
    for form in forms {
        let (heir, faulty, sidecar) = known(Level::List, 1, 20, SOON).await;
        faulty.rule(move |seen| {
            let lists = seen.path.matches('/').count() == 4 && seen.is(TENANT);
            if lists {
                Fault::Say(200, &[("content-type", "application/json")], form.into())
            } else {
                Fault::None
            }
        });
        asked_again(&faulty, 10).await;
        all_are_there(&sidecar, 1, 20, form).await;
        eventually("it is said what is wrong with the list", || async {
            admin(&sidecar).await.to_string().contains("policy_id")
        })
        .await;
        faulty.rule(|_| Fault::None);
        heir.client().put_policy("t0/p0", BETTER).await;
        eventually("lists are read again", || async {
            sidecar.client().policy("t0/p0").await.text() == BETTER
        })
        .await;
        sidecar.stop().await;
    }
}
