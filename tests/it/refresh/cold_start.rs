//! What a start finds: HEIR, else the disk, else the local directory.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    fs::{self, File},
    path::Path,
    time::{Duration, SystemTime},
};

use beamline_sidecar::store::Level;
use http::StatusCode;

use crate::support::{Answer, Fault, Faulty, Heir, Sidecar, eventually};

/// An address without a listener.
const NOBODY: &str = "http://127.0.0.1:9";

fn yaml(state: &Path, policies: &Path) -> String {
    format!(
        "state_dir: {}\npolicies_dir: {}\nrefresh: {{interval_ms: 50, stale_after_ms: 60000, expired_after_ms: 600000}}",
        state.display(),
        policies.display()
    )
}

fn age(answer: &Answer) -> u64 {
    answer.header("x-beamline-snapshot-age-ms").parse().unwrap()
}

/// As if HEIR had confirmed the snapshot on disk that long ago.
fn confirmed(state: &Path, ago: Duration) {
    let file = File::options().append(true).open(state.join("snapshot")).unwrap();
    file.set_modified(SystemTime::now() - ago).unwrap();
}

/// A state directory that a sidecar of this HEIR has left behind.
async fn left_behind(heir: &Heir) -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&heir.url(), &format!("state_dir: {}", state.path().display()));
    sidecar.wait_for("live").await;
    eventually("it is on disk", || async {
        state.path().join("snapshot").exists()
    })
    .await;
    sidecar.stop().await;
    state
}

#[tokio::test]
async fn heir_comes_before_the_disk_and_the_disk_before_the_directory() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{\"from\":\"heir\"}").await;
    let extension = "{\"id\":\"pii\",\"module\":\"abc\"}";
    assert_eq!(
        heir.client()
            .put("/api/v1/extensions/pii", extension)
            .await
            .status,
        StatusCode::CREATED
    );
    let policies = tempfile::tempdir().unwrap();
    fs::create_dir(policies.path().join("acme")).unwrap();
    for id in ["a", "b"] {
        fs::write(
            policies.path().join(format!("acme/{id}.json")),
            "{\"from\":\"file\"}",
        )
        .unwrap();
    }
    let empty = tempfile::tempdir().unwrap();

    // The directory alone.
    let sidecar = Sidecar::start(NOBODY, &yaml(empty.path(), policies.path()));
    sidecar.wait_for("degraded").await;
    assert_eq!(sidecar.admin().get("/ready").await.status, StatusCode::OK);
    for id in ["acme/a", "acme/b"] {
        let got = sidecar.client().policy(id).await;
        assert_eq!(
            (got.text(), got.header("x-beamline-source")),
            ("{\"from\":\"file\"}", "file")
        );
    }
    sidecar.stop().await;
    assert!(
        !empty.path().join("snapshot").exists(),
        "what HEIR never said is not kept as HEIR's"
    );

    // Nothing at all.
    let none = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(NOBODY, &yaml(empty.path(), none.path()));
    let ready = sidecar.admin().get("/ready").await;
    assert_eq!(
        (ready.status, &ready.json()["state"]),
        (StatusCode::SERVICE_UNAVAILABLE, &"not_ready".into())
    );
    assert_eq!(
        sidecar.client().policy("acme/a").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    assert_eq!(
        sidecar.client().get("/health").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    sidecar.stop().await;

    // The disk before the directory.
    let state = left_behind(&heir).await;
    let sidecar = Sidecar::start(NOBODY, &yaml(state.path(), policies.path()));
    sidecar.wait_for("degraded").await;
    let from_disk = sidecar.client().policy("acme/a").await;
    assert_eq!(
        (from_disk.text(), from_disk.header("x-beamline-source")),
        ("{\"from\":\"heir\"}", "disk")
    );
    assert_eq!(from_disk.header("x-beamline-snapshot-revision"), "2");
    assert_eq!(
        from_disk.header("etag"),
        heir.client().policy("acme/a").await.header("etag")
    );
    assert_eq!(
        sidecar
            .client()
            .policy("acme/b")
            .await
            .header("x-beamline-source"),
        "file"
    );
    let absent = sidecar.client().policy("acme/none").await;
    assert_eq!(
        (absent.status, absent.header("x-beamline-stale")),
        (StatusCode::NOT_FOUND, "true")
    );
    let page = sidecar.admin().get("/admin/snapshot").await.json();
    assert_eq!(
        (
            &page["source"],
            &page["extensions"],
            &page["revision"],
            &page["coverage"]
        ),
        (&"disk".into(), &1.into(), &2.into(), &"whole".into())
    );
    sidecar.stop().await;

    // HEIR before the disk.
    heir.client()
        .put_policy("acme/a", "{\"from\":\"heir\",\"v\":2}")
        .await;
    let sidecar = Sidecar::start(&heir.url(), &yaml(state.path(), policies.path()));
    sidecar.wait_for("live").await;
    let got = sidecar.client().policy("acme/a").await;
    assert_eq!(
        (got.text(), got.header("x-beamline-source")),
        ("{\"from\":\"heir\",\"v\":2}", "heir")
    );
    let page = sidecar.admin().get("/admin/snapshot").await.json();
    assert_eq!(
        (&page["source"], &page["extensions"]),
        (&"heir".into(), &1.into())
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn an_age_goes_on_over_a_restart() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{}").await;
    let state = left_behind(&heir).await;
    let none = tempfile::tempdir().unwrap();
    for (ago, freshness) in [(20, "fresh"), (120, "stale"), (1_200, "expired")] {
        confirmed(state.path(), Duration::from_secs(ago));
        // Two restarts without HEIR must not make it younger.
        for _ in 0..2 {
            let sidecar = Sidecar::start(NOBODY, &yaml(state.path(), none.path()));
            let got = sidecar.client().policy("acme/a").await;
            assert_eq!(
                (got.status, got.header("x-beamline-freshness")),
                (StatusCode::OK, freshness)
            );
            assert!(
                (ago * 1_000..ago * 1_000 + 30_000).contains(&age(&got)),
                "{}",
                age(&got)
            );
            sidecar.stop().await;
        }
    }
    let refusing =
        yaml(state.path(), none.path()).replace("interval_ms: 50", "interval_ms: 50, when_expired: refuse");
    let sidecar = Sidecar::start(NOBODY, &refusing);
    let refused = sidecar.client().policy("acme/a").await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "policy_expired".into())
    );
    assert_eq!(
        sidecar.admin().get("/ready").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    sidecar.stop().await;
    // HEIR makes it young again.
    let sidecar = Sidecar::start(&heir.url(), &refusing);
    sidecar.wait_for("live").await;
    let got = sidecar.client().policy("acme/a").await;
    assert_eq!(
        (got.status, got.header("x-beamline-freshness")),
        (StatusCode::OK, "fresh")
    );
    assert!(age(&got) < 30_000);
    sidecar.stop().await;
}

#[tokio::test]
async fn what_was_confirmed_at_a_time_to_come_is_stale() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{}").await;
    let state = left_behind(&heir).await;
    let file = File::options()
        .append(true)
        .open(state.path().join("snapshot"))
        .unwrap();
    file.set_modified(SystemTime::now() + Duration::from_secs(86_400))
        .unwrap();
    let none = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(NOBODY, &yaml(state.path(), none.path()));
    let got = sidecar.client().policy("acme/a").await;
    assert_eq!(
        (got.status, got.header("x-beamline-freshness")),
        (StatusCode::OK, "stale")
    );
    assert!(age(&got) < 10_000);
    sidecar.stop().await;
}

#[tokio::test]
async fn tenants_known_whole_stay_so_over_a_restart() {
    let heir = Heir::start(Level::List).await;
    heir.client().put_policy("acme/a", "{}").await;
    let state = tempfile::tempdir().unwrap();
    let own = format!(
        "state_dir: {}\nrefresh: {{interval_ms: 50}}",
        state.path().display()
    );
    let sidecar = Sidecar::start(&heir.url(), &own);
    sidecar.wait_for("live").await;
    assert_eq!(sidecar.client().policy("acme/a").await.status, StatusCode::OK);
    eventually("the tenant is listed", || async {
        sidecar.client().get("/api/v1/policies/acme").await.json()["policies"][0]["policy_id"] == "a"
    })
    .await;
    sidecar.stop().await;
    let sidecar = Sidecar::start(NOBODY, &own);
    assert_eq!(
        sidecar
            .client()
            .policy("acme/a")
            .await
            .header("x-beamline-source"),
        "disk"
    );
    assert_eq!(
        sidecar.client().policy("acme/none").await.status,
        StatusCode::NOT_FOUND,
        "the tenant was listed"
    );
    assert_eq!(
        sidecar.client().policy("other/a").await.status,
        StatusCode::SERVICE_UNAVAILABLE,
        "this one was not"
    );
    sidecar.stop().await;
}

/// The states that `/ready` names until it says this one, and the status of each.
async fn states_until(sidecar: &Sidecar, last: &str) -> Vec<(StatusCode, String)> {
    let states = std::sync::Mutex::new(Vec::new());
    eventually(last, || async {
        let ready = sidecar.admin().get("/ready").await;
        let state = ready.json()["state"].as_str().unwrap().to_owned();
        let is_last = state == last;
        states.lock().unwrap().push((ready.status, state));
        is_last
    })
    .await;
    states.into_inner().unwrap()
}

#[tokio::test]
async fn a_start_is_called_one_and_not_an_outage() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{}").await;
    let state = left_behind(&heir).await;
    let faulty = Faulty::start(heir.address()).await;
    // HEIR takes its time, and no time-out of this test is shorter.
    faulty.rule(|_| Fault::Silence);
    let yaml = format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\nshutdown: {{lame_duck_ms: 50}}\nstate_dir: {}\n\
         heir: {{url: '{}', timeout_ms: 600000, health_interval_ms: 3600000}}",
        state.path().display(),
        faulty.url()
    );
    let sidecar = Sidecar::try_start(&yaml).unwrap();
    eventually("HEIR is asked", || async { !faulty.is_idle() }).await;
    let ready = sidecar.admin().get("/ready").await;
    assert_eq!(
        (ready.status, &ready.json()["state"]),
        (StatusCode::OK, &"starting".into()),
        "{}",
        ready.text()
    );
    let from_disk = sidecar.client().policy("acme/a").await;
    assert_eq!(from_disk.header("x-beamline-source"), "disk");
    sidecar.stop().await;
    // One that answers is never taken for away.
    faulty.rule(|_| Fault::Late(Duration::from_millis(300)));
    let sidecar = Sidecar::try_start(&yaml).unwrap();
    let states = states_until(&sidecar, "live").await;
    let is_well = |(status, state): &(StatusCode, String)| *status == StatusCode::OK && state != "degraded";
    assert!(states.iter().all(is_well), "{states:?}");
    sidecar.stop().await;
    // And one that fails is away from then on.
    faulty.rule(|_| Fault::Refuse);
    let sidecar = Sidecar::try_start(&yaml).unwrap();
    sidecar.wait_for("degraded").await;
    sidecar.stop().await;
}
