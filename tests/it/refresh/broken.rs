//! Policies with mistakes that HEIR or a file has all the same: lookups get them, decisions keep the last good version.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{fs, path::Path};

use beamline_sidecar::store::Level;
use http::StatusCode;
use serde_json::{Value, json};

use crate::{
    decide::request,
    support::{Answer, Client, Heir, Sidecar, eventually},
};

const LEVELS: [Level; 4] = [Level::Single, Level::List, Level::Snapshot, Level::Changes];
const SOON: &str = "refresh: {interval_ms: 50, long_poll_timeout_ms: 200, jitter_seed: 1}";
const GOOD: &str = r#"{"version":"1.0","providers":[{"name":"good","weight":100}]}"#;
const BROKEN: &str = r#"{"version":"2.0","providers":[{"name":"bad","weight":"lots"}]}"#;
const BETTER: &str = r#"{"version":"3.0","providers":[{"name":"better","weight":100}]}"#;

async fn decide(client: &Client, policy: &str) -> Answer {
    let asked = request("t", policy, json!({}));
    crate::decide::decide(client, &asked, &[("x-beamline-explain", "verbose")]).await
}

async fn admin(sidecar: &Sidecar) -> Value {
    sidecar.admin().get("/admin/snapshot").await.json()
}

fn provider(answer: &Answer) -> String {
    let body = answer.json();
    body["decision"]["provider_id"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// Everything that is said of `t/p` while it is broken and has a last good version.
async fn is_kept(sidecar: &Sidecar, what: &str) {
    let client = sidecar.client();
    let looked_up = client.policy("t/p").await;
    assert_eq!(looked_up.text(), BROKEN, "{what}: the Router judges for itself");
    assert_eq!(looked_up.header("x-beamline-policy-problems"), "1", "{what}");
    let other = client.policy("t/other").await;
    assert_eq!(other.find_header("x-beamline-policy-problems"), None, "{what}");
    let decided = decide(&client, "p").await;
    assert_eq!(provider(&decided), "good", "{what}: {}", decided.text());
    assert!(
        decided
            .text()
            .contains("its last good version decides: $.providers"),
        "{what}: {}",
        decided.text()
    );
    let page = admin(sidecar).await;
    assert_eq!(page["problem_count"], 1, "{what}: {page}");
    let problems = page["problems"][0]["problems"].to_string();
    assert!(problems.contains("$.providers[0].weight"), "{what}: {page}");
    assert_eq!(
        sidecar.metric("beamline_sidecar_snapshot_problems").await,
        1.0,
        "{what}"
    );
}

#[tokio::test]
async fn decisions_keep_the_last_good_version_of_a_policy_that_is_broken_in_heir() {
    for level in LEVELS {
        let mut heir = Heir::start(level).await;
        let folder = tempfile::tempdir().unwrap();
        for policy in ["t/p", "t/other"] {
            heir.client().put_policy(policy, GOOD).await;
        }
        let yaml = format!("{SOON}\nstate_dir: {}", folder.path().display());
        let sidecar = Sidecar::start(&heir.url(), &yaml);
        sidecar.wait_for("live").await;
        for policy in ["p", "other"] {
            assert_eq!(
                provider(&decide(&sidecar.client(), policy).await),
                "good",
                "{level}"
            );
        }
        heir.client().put_policy("t/p", BROKEN).await;
        eventually("lookups get it", || async {
            sidecar.client().policy("t/p").await.text() == BROKEN
        })
        .await;
        is_kept(&sidecar, level.as_str()).await;
        // It survives a restart, with HEIR away and with the broken version in HEIR.
        sidecar.stop().await;
        heir.gone().await;
        let sidecar = Sidecar::start(&heir.url(), &yaml);
        is_kept(&sidecar, &format!("{level}, after a restart")).await;
        heir.back().await;
        sidecar.wait_for("live").await;
        is_kept(&sidecar, &format!("{level}, after a restart and a refresh")).await;
        heir.client().put_policy("t/p", BETTER).await;
        eventually("it is well again", || async {
            provider(&decide(&sidecar.client(), "p").await) == "better"
        })
        .await;
        assert_eq!(admin(&sidecar).await["problem_count"], 0, "{level}");
        // What is good now is what is kept the next time.
        heir.client().put_policy("t/p", BROKEN).await;
        eventually("lookups get it", || async {
            sidecar.client().policy("t/p").await.text() == BROKEN
        })
        .await;
        assert_eq!(
            provider(&decide(&sidecar.client(), "p").await),
            "better",
            "{level}"
        );
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn without_a_last_good_version_the_failure_names_the_mistake() {
    for level in LEVELS {
        let heir = Heir::start(level).await;
        heir.client().put_policy("t/p", BROKEN).await;
        let sidecar = Sidecar::start(&heir.url(), SOON);
        sidecar.wait_for("live").await;
        assert_eq!(sidecar.client().policy("t/p").await.text(), BROKEN, "{level}");
        let failed = decide(&sidecar.client(), "p").await;
        assert_eq!(
            (failed.status, failed.code().as_str()),
            (StatusCode::SERVICE_UNAVAILABLE, "decision_failed"),
            "{level}: {}",
            failed.text()
        );
        assert!(failed.text().contains("$.providers: "), "{}", failed.text());
        sidecar.stop().await;
    }
}

#[tokio::test]
async fn an_operator_can_have_broken_policies_taken() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/p", GOOD).await;
    let yaml = "refresh: {interval_ms: 50, long_poll_timeout_ms: 200, broken_policies: take}";
    let sidecar = Sidecar::start(&heir.url(), yaml);
    sidecar.wait_for("live").await;
    let half = r#"{"providers":[{"name":"half","weight":100}],"timeout_ms":"soon"}"#;
    heir.client().put_policy("t/p", half).await;
    eventually("its readable part decides", || async {
        provider(&decide(&sidecar.client(), "p").await) == "half"
    })
    .await;
    let decided = decide(&sidecar.client(), "p").await;
    assert!(
        decided
            .text()
            .contains("it decides by what can be read of it: $.timeout_ms"),
        "{}",
        decided.text()
    );
    assert_eq!(admin(&sidecar).await["problem_count"], 1);
    sidecar.stop().await;
}

fn file(folder: &Path, document: &str) {
    fs::create_dir_all(folder.join("t")).unwrap();
    let draft = folder.join("t/.p");
    fs::write(&draft, document).unwrap();
    fs::rename(draft, folder.join("t/p.json")).unwrap();
}

#[tokio::test]
async fn a_broken_file_is_kept_from_decisions_as_well() {
    let folder = tempfile::tempdir().unwrap();
    file(folder.path(), GOOD);
    fs::write(folder.path().join("t/other.json"), GOOD).unwrap();
    let sidecar = Sidecar::try_start(&format!(
        "{}heir_policy_store_enabled: false\npolicies_dir: {}",
        crate::support::QUICK,
        folder.path().display()
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    file(folder.path(), BROKEN);
    sidecar.reload().await;
    eventually("lookups get it", || async {
        sidecar.client().policy("t/p").await.text() == BROKEN
    })
    .await;
    is_kept(&sidecar, "policies_dir").await;
    sidecar.stop().await;
}
