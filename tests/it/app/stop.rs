//! Ends of the process that come at a bad time.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use beamline_sidecar::store::Level;
use http::StatusCode;
use rustix::process::Signal;

use crate::support::{Client, Heir, Process, eventually};

fn process(heir: &str, state: &Path) -> (Process, Client, Client) {
    let process = Process::start(
        &["run"],
        &[
            ("BEAMLINE_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_URL", heir),
            ("BEAMLINE_REFRESH_INTERVAL_MS", "100"),
            ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "300"),
            ("BEAMLINE_STATE_DIR", state.to_str().unwrap()),
            ("BEAMLINE_LOG_FORMAT", "json"),
        ],
    );
    let (data, admin) = (
        Client::new(&process.listen[0]),
        Client::new(process.admin.unwrap()),
    );
    (process, data, admin)
}

async fn is_live(admin: &Client) -> bool {
    admin.get("/ready").await.json()["state"] == "live"
}

/// Puts policies into HEIR as fast as it takes them, so that something is being activated at any time.
fn churn(heir: &Heir) -> tokio::task::JoinHandle<()> {
    let client = heir.client();
    tokio::spawn(async move {
        for turn in 0.. {
            client
                .put_policy(&format!("t/{}", turn % 200), format!("{{\"turn\":{turn}}}"))
                .await;
        }
    })
}

#[tokio::test]
async fn hostile_48_no_accepted_request_fails_when_the_process_is_told_to_stop() {
    let heir = Heir::start(Level::Changes).await;
    for id in 0..200 {
        heir.client().put_policy(&format!("t/{id}"), "{\"turn\":0}").await;
    }
    let state = tempfile::tempdir().unwrap();
    let (mut sidecar, client, admin) = process(&heir.url(), state.path());
    eventually("live", || async { is_live(&admin).await }).await;
    let churning = churn(&heir);
    let answered: Arc<[AtomicU32]> = (0..8).map(|_| AtomicU32::new(0)).collect();
    let asking: Vec<_> = (0..8)
        .map(|number| {
            let answered = answered.clone();
            // A connection of its own each, kept until it is closed by the other side.
            let client = Client::new(&sidecar.listen[0]);
            tokio::spawn(async move {
                loop {
                    match client
                        .send(http::Method::GET, "/api/v1/policies/t/7", &[], "")
                        .await
                    {
                        Ok(answer) => {
                            assert_eq!(answer.status, StatusCode::OK);
                            answered[number].fetch_add(1, SeqCst);
                        }
                        // Only without a listener.
                        Err(error) => {
                            let answered = answered[number].load(SeqCst);
                            assert!(error.contains("Connect"), "after {answered}: {error}");
                            return;
                        }
                    }
                }
            })
        })
        .collect();
    eventually("all are being answered", || async {
        answered.iter().all(|answered| answered.load(SeqCst) > 20)
    })
    .await;
    sidecar.signal(Signal::TERM);
    for asked in asking {
        asked.await.unwrap();
    }
    assert_eq!(
        tokio::task::spawn_blocking(move || sidecar.wait()).await.unwrap(),
        Some(0)
    );
    churning.abort();
    drop(client);
}

#[tokio::test]
async fn hostile_48_a_process_killed_while_it_writes_starts_from_something_whole() {
    let heir = Heir::start(Level::Changes).await;
    for id in 0..200 {
        heir.client()
            .put_policy(
                &format!("t/{id}"),
                format!("{{\"turn\":0,\"text\":\"{}\"}}", "x".repeat(20_000)),
            )
            .await;
    }
    let churning = churn(&heir);
    let state = tempfile::tempdir().unwrap();
    let mut was_written = false;
    for turn in 0..6u64 {
        let (mut sidecar, _, admin) = process(&heir.url(), state.path());
        eventually("live", || async { is_live(&admin).await }).await;
        // At another moment of the writing each time.
        tokio::time::sleep(Duration::from_millis(100 + 97 * turn)).await;
        if turn == 5 && !was_written {
            let snapshot = state.path().join("snapshot");
            eventually("it has written", || async { snapshot.exists() }).await;
        }
        sidecar.kill();
        // There is no HEIR: the snapshot on disk has to do.
        let (mut again, client, admin) = process("http://127.0.0.1:9", state.path());
        let (current, previous) = (
            state.path().join("snapshot"),
            state.path().join("snapshot.previous"),
        );
        was_written |= current.exists() || previous.exists();
        if was_written {
            eventually("HEIR is away", || async {
                admin.get("/ready").await.json()["state"] == "degraded"
            })
            .await;
            let list = client.get("/api/v1/policies/t").await;
            assert_eq!(list.json()["policies"].as_array().unwrap().len(), 200);
            assert_eq!(client.policy("t/7").await.header("x-beamline-source"), "disk");
        }
        assert!(
            !again.log().iter().any(|line| line.contains("damaged")),
            "{:?}",
            again.log()
        );
        again.kill();
        let left: Vec<_> = std::fs::read_dir(state.path())
            .unwrap()
            .map(|file| file.unwrap().file_name())
            .collect();
        assert!(
            !left
                .iter()
                .any(|name| name.to_string_lossy().starts_with(".snapshot")),
            "{left:?}"
        );
    }
    assert!(was_written, "no run had time to write");
    churning.abort();
}

#[tokio::test]
async fn hostile_48_told_to_stop_during_an_activation_it_ends_in_order() {
    let heir = Heir::start(Level::Changes).await;
    let churning = churn(&heir);
    let state = tempfile::tempdir().unwrap();
    for turn in 0..5u64 {
        let (mut sidecar, _, admin) = process(&heir.url(), state.path());
        eventually("live", || async { is_live(&admin).await }).await;
        tokio::time::sleep(Duration::from_millis(37 * turn)).await;
        sidecar.signal(Signal::TERM);
        let (code, log) = tokio::task::spawn_blocking(move || (sidecar.wait(), sidecar.log()))
            .await
            .unwrap();
        assert_eq!(code, Some(0));
        assert!(
            !log.iter()
                .any(|line| line.contains("panicked") || line.contains("damaged")),
            "{log:?}"
        );
        // A stop in order leaves the newest snapshot behind.
        let (mut again, client, _) = process("http://127.0.0.1:9", state.path());
        assert_eq!(client.policy("t/0").await.header("x-beamline-source"), "disk");
        again.kill();
    }
    churning.abort();
}

#[tokio::test]
async fn a_resolver_that_hangs_keeps_no_process_from_ending() {
    // Takes every question and answers none.
    let resolver = tokio::net::UdpSocket::bind("127.0.0.99:53").await.unwrap();
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("resolv.conf");
    std::fs::write(&file, "nameserver 127.0.0.99\noptions timeout:30 attempts:5\n").unwrap();
    for signals in [1, 2] {
        let mut process = Process::start_with_file(
            &file,
            "/etc/resolv.conf",
            &["run"],
            &[
                ("BEAMLINE_LISTEN", "127.0.0.1:0"),
                ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
                ("BEAMLINE_HEIR_URL", "http://heir.beamline.test:8080"),
                ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "0"),
                ("BEAMLINE_SHUTDOWN_DRAIN_TIMEOUT_MS", "1000"),
            ],
        );
        let mut question = [0; 512];
        resolver.recv(&mut question).await.unwrap();
        for _ in 0..signals {
            process.signal(Signal::TERM);
        }
        let ended = tokio::task::spawn_blocking(move || process.wait());
        // The resolver alone would take two and a half minutes.
        let code = tokio::time::timeout(Duration::from_secs(30), ended)
            .await
            .unwrap()
            .unwrap();
        assert!(code.is_some(), "it ended by itself");
        if signals == 1 {
            assert_eq!(code, Some(0));
        }
    }
}
