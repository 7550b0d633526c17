//! A disk that is full, read-only or damaged, and starts of all kinds.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use beamline_sidecar::store::Level;
use http::StatusCode;

use crate::support::{Heir, Sidecar, SmallDisk, eventually};

const NOBODY: &str = "http://127.0.0.1:9";

fn state(dir: &Path) -> String {
    format!("state_dir: {}\nrefresh: {{interval_ms: 100}}", dir.display())
}

/// A state directory with two generations of the snapshot; the newer one has acme/a in version 2.
async fn two_generations(heir: &Heir) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for version in [1, 2] {
        heir.client()
            .put_policy("acme/a", format!("{{\"v\":{version}}}"))
            .await;
        let sidecar = Sidecar::start(&heir.url(), &state(dir.path()));
        sidecar.wait_for("live").await;
        sidecar.stop().await;
    }
    assert!(dir.path().join("snapshot").exists() && dir.path().join("snapshot.previous").exists());
    dir
}

fn set_aside(dir: &Path) -> Vec<PathBuf> {
    let files = fs::read_dir(dir).unwrap().map(|file| file.unwrap().path());
    files
        .filter(|path| path.to_string_lossy().contains(".damaged-"))
        .collect()
}

#[tokio::test]
async fn hostile_34_a_damaged_snapshot_is_moved_aside_and_the_one_before_is_used() {
    let heir = Heir::start(Level::Changes).await;
    let good = two_generations(&heir).await;
    let whole = fs::read(good.path().join("snapshot")).unwrap();
    let previous = fs::read(good.path().join("snapshot.previous")).unwrap();
    let mut flipped = whole.clone();
    let last = flipped.len() - 2;
    flipped[last] ^= 1;
    let old = String::from_utf8(whole.clone())
        .unwrap()
        .replacen("\"format\":3", "\"format\":0", 1);
    assert_ne!(old.as_bytes(), whole);
    for (what, content) in [
        ("truncated", whole[..whole.len() / 2].to_vec()),
        ("cut in its header", whole[..20].to_vec()),
        ("empty", Vec::new()),
        ("bit-flipped", flipped),
        ("of another format", old.into_bytes()),
        ("something else", b"\x7fELF\n\0\0".to_vec()),
    ] {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("snapshot"), &content).unwrap();
        fs::write(dir.path().join("snapshot.previous"), &previous).unwrap();
        let sidecar = Sidecar::start(NOBODY, &state(dir.path()));
        let got = sidecar.client().policy("acme/a").await;
        assert_eq!(
            (got.text(), got.header("x-beamline-source")),
            ("{\"v\":1}", "disk"),
            "{what}"
        );
        sidecar.stop().await;
        let aside = set_aside(dir.path());
        assert_eq!(aside.len(), 1, "{what}");
        assert_eq!(
            fs::read(&aside[0]).unwrap(),
            content,
            "{what}: kept for an investigation"
        );

        // Both damaged: a start without memory, not a crash; and HEIR heals it.
        fs::write(dir.path().join("snapshot"), &content).unwrap();
        fs::write(dir.path().join("snapshot.previous"), &content).unwrap();
        let sidecar = Sidecar::start(NOBODY, &state(dir.path()));
        assert_eq!(
            sidecar.admin().get("/ready").await.status,
            StatusCode::SERVICE_UNAVAILABLE,
            "{what}"
        );
        sidecar.stop().await;
        let sidecar = Sidecar::start(&heir.url(), &state(dir.path()));
        sidecar.wait_for("live").await;
        assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":2}");
        sidecar.stop().await;
        assert!(dir.path().join("snapshot").exists(), "{what}");
    }
}

#[tokio::test]
async fn hostile_34_a_process_killed_between_two_renames_left_the_one_before() {
    let heir = Heir::start(Level::Changes).await;
    let dir = two_generations(&heir).await;
    fs::rename(dir.path().join("snapshot"), dir.path().join(".snapshotAbCdEf")).unwrap();
    let sidecar = Sidecar::start(NOBODY, &state(dir.path()));
    assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":1}");
    assert!(set_aside(dir.path()).is_empty());
    assert!(
        !dir.path().join(".snapshotAbCdEf").exists(),
        "half-written files do not pile up"
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_34_a_full_disk_costs_newer_generations_and_queued_writes_only() {
    let Some(disk) = SmallDisk::mount("256k") else {
        return;
    };
    let mut heir = Heir::start(Level::Changes).await;
    for id in ["a", "b"] {
        heir.client().put_policy(&format!("acme/{id}"), "{\"v\":1}").await;
    }
    let sidecar = Sidecar::start(&heir.url(), &state(disk.path()));
    sidecar.wait_for("live").await;
    eventually("a first generation is on disk", || async {
        disk.path().join("snapshot").exists()
    })
    .await;
    heir.gone().await;
    let queued = sidecar.client().put_policy("acme/b", "{\"v\":2}").await;
    assert_eq!(queued.header("x-beamline-write"), "queued");
    disk.fill();
    let long = format!("{{\"text\":\"{}\"}}", "x".repeat(50_000));
    let refused = sidecar.client().put_policy("acme/a", long.clone()).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable".into())
    );
    assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":1}");
    assert_eq!(sidecar.client().policy("acme/b").await.text(), "{\"v\":2}");
    sidecar.stop().await;
    // What was written whole is still there, also the write that was acknowledged.
    let sidecar = Sidecar::start(&heir.url(), &state(disk.path()));
    assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":1}");
    assert_eq!(sidecar.client().policy("acme/b").await.text(), "{\"v\":2}");
    heir.back().await;
    sidecar.wait_for("live").await;
    eventually("the write is made and done with", || async {
        sidecar.admin().get("/admin/writes").await.json()["writes"] == serde_json::json!([])
    })
    .await;
    assert_eq!(heir.client().policy("acme/b").await.text(), "{\"v\":2}");
    for id in 0..10 {
        heir.client()
            .put_policy(&format!("acme/{id}"), long.clone())
            .await;
    }
    eventually("memory goes on", || async {
        sidecar.client().policy("acme/9").await.status == StatusCode::OK
    })
    .await;
    sidecar.stop().await;
    let sidecar = Sidecar::start(NOBODY, &state(disk.path()));
    assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":1}");
    assert_eq!(
        sidecar.admin().get("/admin/writes").await.json()["writes"],
        serde_json::json!([])
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_34_a_read_only_disk_is_still_read() {
    let Some(disk) = SmallDisk::mount("4m") else {
        return;
    };
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{\"v\":1}").await;
    let sidecar = Sidecar::start(&heir.url(), &state(disk.path()));
    sidecar.wait_for("live").await;
    sidecar.stop().await;
    assert!(disk.path().join("snapshot").exists());
    disk.make_read_only();
    let sidecar = Sidecar::start(NOBODY, &state(disk.path()));
    assert_eq!(
        sidecar
            .client()
            .policy("acme/a")
            .await
            .header("x-beamline-source"),
        "disk"
    );
    let refused = sidecar.client().put_policy("acme/a", "{}").await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable".into())
    );
    sidecar.stop().await;
    // HEIR is followed all the same.
    heir.client().put_policy("acme/a", "{\"v\":2}").await;
    let sidecar = Sidecar::start(&heir.url(), &state(disk.path()));
    sidecar.wait_for("live").await;
    assert_eq!(sidecar.client().policy("acme/a").await.text(), "{\"v\":2}");
    sidecar.stop().await;
    heir.gone().await;
}

#[tokio::test]
async fn a_state_directory_is_one_processs_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(NOBODY, &state(dir.path()));
    let second = Sidecar::try_start(&format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\n{}",
        state(dir.path())
    ));
    assert!(second.err().unwrap().contains("StateDirInUse"));
    sidecar.stop().await;
    Sidecar::start(NOBODY, &state(dir.path())).stop().await;
}

#[tokio::test]
async fn hostile_36_ready_means_a_correct_answer_from_the_first_moment_on() {
    const STARTS: usize = 1_000;
    const AT_ONCE: usize = 40;
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{\"v\":1}").await;
    let left = tempfile::tempdir().unwrap();
    let sidecar = Sidecar::start(&heir.url(), &state(left.path()));
    sidecar.wait_for("live").await;
    sidecar.stop().await;
    let files = tempfile::tempdir().unwrap();
    fs::create_dir(files.path().join("acme")).unwrap();
    fs::write(files.path().join("acme/a.json"), "{\"v\":1}").unwrap();
    for batch in 0..STARTS / AT_ONCE {
        let mut starting = tokio::task::JoinSet::new();
        for number in 0..AT_ONCE {
            let dir = tempfile::tempdir().unwrap();
            let (url, from) = match number % 3 {
                0 => {
                    fs::copy(left.path().join("snapshot"), dir.path().join("snapshot")).unwrap();
                    (NOBODY.to_owned(), format!("state_dir: {}", dir.path().display()))
                }
                1 => (
                    NOBODY.to_owned(),
                    format!("policies_dir: {}", files.path().display()),
                ),
                _ => (heir.url(), String::new()),
            };
            let yaml = format!(
                "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\nshutdown: {{lame_duck_ms: 0, drain_timeout_ms: 1000}}\nheir: {{url: '{url}'}}\n{from}"
            );
            starting.spawn(async move {
                let sidecar = Sidecar::try_start(&yaml).unwrap();
                let (client, admin) = (sidecar.client(), sidecar.admin());
                let given_up = Instant::now() + Duration::from_secs(120);
                let mut was_ready = false;
                while !was_ready && Instant::now() < given_up {
                    if admin.get("/ready").await.status == StatusCode::OK {
                        let got = client.policy("acme/a").await;
                        assert_eq!(
                            (got.status, got.text()),
                            (StatusCode::OK, "{\"v\":1}"),
                            "start {batch}.{number}"
                        );
                        was_ready = true;
                    }
                }
                assert!(was_ready, "start {batch}.{number} was never ready");
                sidecar.stop().await;
                drop(dir);
            });
        }
        while let Some(done) = starting.join_next().await {
            done.unwrap();
        }
    }
}
