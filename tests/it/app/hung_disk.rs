//! A disk that hangs below `state_dir`: what reads or writes there waits, and nothing else does. The disks are real ones, for
//! which the tests have to be run by root.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path};

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use rustix::process::{Pid, Signal};

use crate::support::{Client, FrozenDisk, Heir, Process, SilentDisk, eventually, has_mounts_of_its_own};

const LISTEN: [(&str, &str); 3] = [
    ("BEAMLINE_LISTEN", "127.0.0.1:0"),
    ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
    ("BEAMLINE_REFRESH_INTERVAL_MS", "100"),
];

/// A sidecar that has its snapshot on the disk.
async fn sidecar(heir: &Heir, state: &Path, more: &[(&str, &str)]) -> (Process, Client, Client) {
    let url = heir.url();
    let mut environment = LISTEN.to_vec();
    environment.extend([
        ("BEAMLINE_HEIR_URL", &*url),
        ("BEAMLINE_STATE_DIR", state.to_str().unwrap()),
    ]);
    environment.extend(more);
    let process = Process::start(&["run"], &environment);
    let (data, admin) = (
        Client::new(&process.listen[0]),
        Client::new(process.admin.unwrap()),
    );
    eventually("the snapshot is on disk", || async {
        data.policy("t/a").await.status == StatusCode::OK && state.join("snapshot").exists()
    })
    .await;
    (process, data, admin)
}

/// What a process may do about a disk that hangs: a write that waits for it, and a snapshot to be saved. Everything else
/// goes on.
async fn works_beside_the_disk(heir: &mut Heir, process: &Process, data: &Client, admin: &Client) {
    heir.client().put_policy("t/a", "{\"v\":2}").await;
    eventually("the change is seen", || async {
        data.policy("t/a").await.text() == "{\"v\":2}"
    })
    .await;
    heir.gone().await;
    let waits = Client::new(&process.listen[0]);
    let waiting = tokio::spawn(async move {
        waits
            .send(Method::PUT, "/api/v1/policies/t/b", &[], "{\"v\":1}")
            .await
    });
    for _ in 0..200 {
        assert_eq!(data.policy("t/a").await.text(), "{\"v\":2}");
        assert_eq!(admin.get("/live").await.status, StatusCode::OK);
        assert_eq!(admin.get("/ready").await.status, StatusCode::OK);
        assert_eq!(admin.get("/metrics").await.status, StatusCode::OK);
    }
    waiting.abort();
}

async fn heir() -> Heir {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", "{\"v\":1}").await;
    heir
}

/// The state of the first thread of a process, as in proc(5).
fn state_of(pid: Pid) -> Option<char> {
    let stat = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    stat.rsplit_once(") ")?.1.chars().next()
}

#[tokio::test]
async fn a_disk_that_cannot_even_be_interrupted_holds_up_the_kernel_alone() {
    let mut heir = heir().await;
    let mut disk = FrozenDisk::mount();
    let more = [
        ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "0"),
        ("BEAMLINE_SHUTDOWN_DRAIN_TIMEOUT_MS", "1000"),
    ];
    let (mut process, data, admin) = sidecar(&heir, &disk.path().join("state"), &more).await;
    disk.freeze();
    works_beside_the_disk(&mut heir, &process, &data, &admin).await;
    process.signal(Signal::TERM);
    // It has ended: only threads are left that the kernel does not let go before the disk answers.
    eventually("it has ended", || async { state_of(process.pid()) == Some('Z') }).await;
    assert!(
        data.send(Method::GET, "/api/v1/policies/t/a", &[], "")
            .await
            .is_err()
    );
    disk.thaw();
    assert_eq!(process.wait(), Some(0));
}

/// Whether a process has been killed, whether or not the kernel can carry it out.
fn is_killed(pid: Pid) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let pending = |name: &str| status.lines().find_map(|line| line.strip_prefix(name));
    ["SigPnd:", "ShdPnd:"]
        .into_iter()
        .filter_map(|name| u64::from_str_radix(pending(name)?.trim(), 16).ok())
        .any(|signals| signals & (1 << (Signal::KILL.as_raw() - 1)) != 0)
}

#[tokio::test]
async fn a_start_that_hangs_is_ended_and_another_one_begun() {
    let heir = heir().await;
    let mut disk = FrozenDisk::mount();
    let state = disk.path().join("state");
    fs::create_dir(&state).unwrap();
    disk.freeze();
    let url = heir.url();
    let mut environment = LISTEN.to_vec();
    environment.extend([
        ("BEAMLINE_HEIR_URL", &*url),
        ("BEAMLINE_STATE_DIR", state.to_str().unwrap()),
        ("BEAMLINE_RUNTIME_START_TIMEOUT_MS", "5000"),
    ]);
    let mut process = Process::start_unheard(&["run", "--supervised"], &environment);
    eventually("the worker that hangs is ended", || async {
        process
            .children()
            .first()
            .is_some_and(|worker| is_killed(*worker))
    })
    .await;
    // Not before the disk lets it go, and then the next one finds all in order.
    disk.thaw();
    process.wait_until_it_listens();
    let metrics = Client::new(process.admin.unwrap()).get("/metrics").await;
    assert!(
        metrics.text().contains("worker_restarts_total{cause=\"hung\"} 1"),
        "{}",
        metrics.text()
    );
    let client = Client::new(&process.listen[0]);
    eventually("it answers", || async {
        client.policy("t/a").await.status == StatusCode::OK
    })
    .await;
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), Some(0));
}

/// Whether a thread of a process waits in the kernel for something that need not come.
fn is_held_up(pid: Pid) -> bool {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).into_iter();
    let stat = |thread: fs::DirEntry| fs::read_to_string(thread.path().join("stat")).ok();
    threads
        .flatten()
        .filter_map(|thread| stat(thread.ok()?))
        .any(|stat| {
            stat.rsplit_once(") ")
                .is_some_and(|(_, rest)| rest.starts_with('D'))
        })
}

/// Directories of which a sidecar reads something, and the variables that name what.
const READ: [(&str, &str, &str); 6] = [
    ("state", "", "BEAMLINE_STATE_DIR"),
    ("policies", "", "BEAMLINE_POLICIES_DIR"),
    ("extensions", "", "BEAMLINE_EXTENSIONS_DIR"),
    ("token", "token", "BEAMLINE_HEIR_TOKEN_FILE"),
    ("admin", "token", "BEAMLINE_ADMIN_TOKEN_FILE"),
    ("config", "sidecar.yaml", ""),
];

/// All of them, each with what belongs there. The arguments and the environment for a sidecar that reads them.
fn readable(folder: &Path, heir: &Heir) -> (Vec<String>, Vec<(String, String)>) {
    let mut arguments = vec!["run".to_owned()];
    let mut environment: Vec<(String, String)> = LISTEN
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    environment.extend([
        ("BEAMLINE_HEIR_URL".into(), heir.url()),
        ("BEAMLINE_HEIR_HEALTH_INTERVAL_MS".into(), "100".into()),
    ]);
    for (dir, file, variable) in READ {
        let dir = folder.join(dir);
        fs::create_dir(&dir).unwrap();
        let place = dir.join(file);
        if !file.is_empty() {
            fs::write(&place, if dir.ends_with("config") { "{}" } else { "secret" }).unwrap();
        }
        let place = place.to_str().unwrap().trim_end_matches('/').to_owned();
        if variable.is_empty() {
            arguments.extend(["--config".into(), place]);
        } else {
            environment.push((variable.into(), place));
        }
    }
    (arguments, environment)
}

fn borrowed(environment: &[(String, String)]) -> Vec<(&str, &str)> {
    environment
        .iter()
        .map(|(name, value)| (&**name, &**value))
        .collect()
}

fn as_texts(arguments: &[String]) -> Vec<&str> {
    arguments.iter().map(String::as_str).collect()
}

#[tokio::test]
async fn a_place_that_cannot_be_read_any_more_holds_up_nothing_and_no_end() {
    if !has_mounts_of_its_own() {
        return;
    }
    for (dir, _, _) in READ {
        let mut heir = heir().await;
        let folder = tempfile::tempdir().unwrap();
        let (arguments, mut environment) = readable(folder.path(), &heir);
        environment.extend([
            ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS".into(), "0".into()),
            ("BEAMLINE_SHUTDOWN_DRAIN_TIMEOUT_MS".into(), "1000".into()),
        ]);
        let mut process = Process::start(&as_texts(&arguments), &borrowed(&environment));
        let (data, admin) = (
            Client::new(&process.listen[0]),
            Client::new(process.admin.unwrap()),
        );
        eventually("it has HEIR's policies", || async {
            data.policy("t/a").await.status == StatusCode::OK
        })
        .await;
        let _silent = SilentDisk::mount_over(&folder.path().join(dir));
        // Something is looked at, at the latest once it is told that something has changed.
        process.signal(Signal::HUP);
        eventually(&format!("{dir} is looked at"), || async {
            is_held_up(process.pid())
        })
        .await;
        let goes_on = works_beside_the_disk(&mut heir, &process, &data, &admin);
        let went_on = tokio::time::timeout(std::time::Duration::from_secs(120), goes_on).await;
        assert!(went_on.is_ok(), "{dir} holds something up");
        // The code says that nothing had to be cut off: that would be another one.
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), Some(0), "{dir}");
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_process_at_once_whatever_hangs() {
    if !has_mounts_of_its_own() {
        return;
    }
    for dir in ["state", "policies", "token"] {
        let heir = heir().await;
        let folder = tempfile::tempdir().unwrap();
        let (arguments, mut environment) = readable(folder.path(), &heir);
        // Nothing in this test waits for as long as a graceful end would take.
        environment.extend([
            ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS".into(), "600000".into()),
            ("BEAMLINE_SHUTDOWN_DRAIN_TIMEOUT_MS".into(), "600000".into()),
        ]);
        let mut process = Process::start(&as_texts(&arguments), &borrowed(&environment));
        let _silent = SilentDisk::mount_over(&folder.path().join(dir));
        process.signal(Signal::HUP);
        eventually(&format!("{dir} is looked at"), || async {
            is_held_up(process.pid())
        })
        .await;
        process.signal(Signal::TERM);
        let admin = Client::new(process.admin.unwrap());
        eventually("it is about to stop", || async {
            admin.get("/ready").await.status == StatusCode::SERVICE_UNAVAILABLE
        })
        .await;
        process.signal(Signal::TERM);
        eventually("it has ended", || async { state_of(process.pid()) == Some('Z') }).await;
        assert_eq!(process.wait(), Some(1), "{dir}: requests may have been cut off");
    }
}

#[tokio::test]
async fn a_second_signal_ends_a_process_on_a_disk_that_cannot_even_be_interrupted() {
    let heir = heir().await;
    let mut disk = FrozenDisk::mount();
    let more = [
        ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "600000"),
        ("BEAMLINE_SHUTDOWN_DRAIN_TIMEOUT_MS", "600000"),
    ];
    let (mut process, data, admin) = sidecar(&heir, &disk.path().join("state"), &more).await;
    disk.freeze();
    heir.client().put_policy("t/a", "{\"v\":2}").await;
    eventually("the change is seen", || async {
        data.policy("t/a").await.text() == "{\"v\":2}"
    })
    .await;
    eventually("the disk is waited for", || async { is_held_up(process.pid()) }).await;
    process.signal(Signal::TERM);
    eventually("it is about to stop", || async {
        admin.get("/ready").await.status == StatusCode::SERVICE_UNAVAILABLE
    })
    .await;
    process.signal(Signal::TERM);
    eventually("it has ended", || async { state_of(process.pid()) == Some('Z') }).await;
    disk.thaw();
    assert_eq!(process.wait(), Some(1));
}

#[tokio::test]
async fn a_start_that_waits_for_a_place_is_ended_by_the_first_signal() {
    if !has_mounts_of_its_own() {
        return;
    }
    for dir in READ.map(|(dir, _, _)| dir).into_iter().chain(["tls"]) {
        let heir = heir().await;
        let folder = tempfile::tempdir().unwrap();
        let (arguments, mut environment) = readable(folder.path(), &heir);
        if dir == "tls" {
            let dir = folder.path().join(dir);
            fs::create_dir(&dir).unwrap();
            let file = dir.join("ca.pem").to_str().unwrap().to_owned();
            environment.extend([
                ("BEAMLINE_HEIR_URL".into(), "https://127.0.0.1:9".into()),
                ("BEAMLINE_HEIR_TLS_CA_FILE".into(), file),
            ]);
        }
        let _silent = SilentDisk::mount_over(&folder.path().join(dir));
        let mut process = Process::start_unheard(&as_texts(&arguments), &borrowed(&environment));
        let everyone = || std::iter::once(process.pid()).chain(process.children());
        eventually(&format!("{dir} is waited for"), || async {
            everyone().any(is_held_up)
        })
        .await;
        process.signal(Signal::TERM);
        assert_eq!(process.wait(), Some(143), "{dir}: a start that was ended");
    }
}
