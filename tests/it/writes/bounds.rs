//! How much waits, on the disk and in memory.
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test fails by panicking, and says what it measured"
)]

use std::path::Path;

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};

use crate::{
    support::{Client, Heir, Process, Proxy, Sidecar, SidecarProcess, eventually, within},
    writes::put_delete::{is_queued, replayed, with_state, writes},
};

fn bytes_on_disk(state: &Path) -> u64 {
    std::fs::read_dir(state.join("journal"))
        .unwrap()
        .map(|file| file.unwrap().metadata().unwrap().len())
        .sum()
}

fn of_length(bytes: usize, version: usize) -> String {
    format!("{{\"v\":{version},\"text\":\"{}\"}}", "x".repeat(bytes))
}

#[tokio::test]
async fn the_bytes_that_wait_are_bounded_and_reported() {
    let mut heir = Heir::start(Level::Changes).await;
    let state = tempfile::tempdir().unwrap();
    let yaml = format!(
        "writes: {{max_queued_bytes: 100000}}\n{}",
        with_state(state.path())
    );
    let sidecar = Sidecar::start(&heir.url(), &yaml);
    sidecar.wait_for("live").await;
    heir.gone().await;
    let client = sidecar.client();
    for name in ["acme/a", "acme/b"] {
        assert!(is_queued(&client.put_policy(name, of_length(40_000, 0)).await));
    }
    let refused = client.put_policy("acme/c", of_length(40_000, 0)).await;
    assert_eq!(
        (refused.status, refused.code()),
        (StatusCode::SERVICE_UNAVAILABLE, "journal_unavailable".into())
    );
    assert!(
        refused.text().contains("writes.max_queued_bytes"),
        "{}",
        refused.text()
    );
    assert_eq!(client.policy("acme/c").await.status, StatusCode::NOT_FOUND);
    // One that takes the place of another needs its room only.
    assert!(is_queued(
        &client.put_policy("acme/a", of_length(50_000, 1)).await
    ));
    let page = writes(&sidecar).await;
    let bytes = page["bytes"].as_u64().unwrap();
    assert_eq!(
        (page["queued"].as_u64(), bytes),
        (Some(2), bytes_on_disk(state.path()))
    );
    assert!(bytes > 90_000 && bytes <= 100_000, "{bytes}");
    assert_eq!(
        sidecar.metric("beamline_sidecar_journal_bytes").await,
        bytes as f64
    );
    heir.back().await;
    replayed(&sidecar).await;
    assert_eq!(writes(&sidecar).await["bytes"], 0);
    eventually("the metric and the disk follow", || async {
        sidecar.metric("beamline_sidecar_journal_bytes").await == 0.0 && bytes_on_disk(state.path()) == 0
    })
    .await;
    assert_eq!(heir.client().policy("acme/a").await.text(), of_length(50_000, 1));
    sidecar.stop().await;
}

/// The most that was resident since this was last asked, in KiB.
fn peak_kib(process: &Process) -> u64 {
    let proc = format!("/proc/{}", process.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(format!("{proc}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmHWM:"))
        .unwrap();
    // The peak begins anew.
    std::fs::write(format!("{proc}/clear_refs"), "5").unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn many_large_trees_of_json_take_little_more_memory_than_one() {
    let heir = Heir::start(Level::Changes).await;
    let process = Process::start(
        &["run"],
        &[
            ("BEAMLINE_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_URL", &heir.url()),
            ("BEAMLINE_REFRESH_INTERVAL_MS", "100"),
            // What a control group of 40 MiB leaves for bodies.
            ("BEAMLINE_LIMITS_MAX_BUFFERED_BYTES", "2621440"),
            ("BEAMLINE_WRITES_VALIDATE", "strict"),
        ],
    );
    let client = Client::new(&process.listen[0]);
    // Half a million values, each of which takes far more memory than text.
    let tree = format!(
        "{{\"weights\":{{\"a\":1.0}},\"metadata\":{{\"list\":[0{}]}}}}",
        ",0".repeat(500_000)
    );
    let put = client.put_policy("t/a", tree.clone()).await;
    assert!(put.status.is_success(), "{}", put.text());
    // Once more, for what is kept for the next time.
    peak_kib(&process);
    let before = peak_kib(&process);
    assert!(client.put_policy("t/a", tree.clone()).await.status.is_success());
    let one = peak_kib(&process) - before;
    let puts: Vec<_> = (0..24)
        .map(|_| {
            let (client, tree) = (Client::new(&process.listen[0]), tree.clone());
            tokio::spawn(async move { client.put_policy("t/a", tree).await })
        })
        .collect();
    let (mut made, mut refused) = (0, 0);
    for put in puts {
        let put = put.await.unwrap();
        match put.status.as_u16() {
            200 => made += 1,
            503 => refused += 1,
            _ => panic!("{}: {}", put.status, put.text()),
        }
    }
    let many = peak_kib(&process).saturating_sub(before);
    println!("one takes {one} KiB, {made} made and {refused} refused take {many} KiB");
    assert!(made > 0);
    assert!(
        many <= 3 * one + (8 << 10),
        "one takes {one} KiB, 24 take {many} KiB"
    );
}

fn resident_mib(sidecar: &SidecarProcess) -> u64 {
    let pid = sidecar.process.pid().as_raw_nonzero();
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() >> 10
}

/// As many megabytes, one write each; with a precondition each, nothing takes the place of another.
async fn write_megabytes(client: &Client, count: usize, preconditions: bool) {
    let mut tag = None;
    for version in 0..count {
        let headers: Vec<(&str, &str)> = tag
            .as_deref()
            .filter(|_| preconditions)
            .map(|tag| ("if-match", tag))
            .into_iter()
            .collect();
        let put = client
            .send(
                Method::PUT,
                "/api/v1/policies/acme/a",
                &headers,
                of_length(1_000_000, version),
            )
            .await
            .unwrap();
        assert!(is_queued(&put), "{version}: {}", put.text());
        tag = Some(put.header("etag").to_owned());
    }
}

#[tokio::test]
async fn documents_that_wait_are_on_the_disk_and_not_in_memory() {
    const MEGABYTES: u64 = 60;
    let mut heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/a", "{}").await;
    let proxy = Proxy::start(heir.address()).await;
    for preconditions in [true, false] {
        let folder = tempfile::tempdir().unwrap();
        let mut sidecar = SidecarProcess::start(folder.path(), proxy.address, "").await;
        sidecar.wait_for("live").await;
        within(60, "the sidecar has a snapshot on disk", || async {
            folder.path().join("state/snapshot").exists()
        })
        .await;
        heir.gone().await;
        let state = folder.path().join("state");
        // The first few make room that is kept for the others.
        write_megabytes(&sidecar.client(), 8, false).await;
        let before = resident_mib(&sidecar);
        write_megabytes(&sidecar.client(), MEGABYTES as usize, preconditions).await;
        let after = resident_mib(&sidecar);
        assert!(after < before + MEGABYTES / 2, "{before} MiB became {after} MiB");
        let on_disk = bytes_on_disk(&state) / 1_000_000;
        if preconditions {
            assert!((MEGABYTES..MEGABYTES + 3).contains(&on_disk), "{on_disk} MB");
        } else {
            assert!(on_disk <= 2, "{on_disk} MB");
        }
        sidecar.process.kill();
        sidecar.up().await;
        let shown = sidecar.client().policy("acme/a").await;
        assert_eq!(shown.text(), of_length(1_000_000, MEGABYTES as usize - 1));
        let again = resident_mib(&sidecar);
        assert!(
            again < before + MEGABYTES / 2,
            "{before} MiB, and {again} MiB after a restart"
        );
        heir.back().await;
        proxy.lead_to(heir.address());
        within(300, "the journal has drained", || async {
            sidecar.admin().get("/admin/writes").await.json()["queued"] == 0
        })
        .await;
        assert_eq!(
            heir.client().policy("acme/a").await.text(),
            of_length(1_000_000, MEGABYTES as usize - 1)
        );
        assert_eq!(sidecar.admin().get("/admin/writes").await.json()["conflicts"], 0);
    }
}
