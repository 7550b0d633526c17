//! What a sidecar stands on is exchanged under it: mounts, a pipe in a file's place, limits of the process.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{fs, path::Path, process::Command, time::Duration};

use beamline_sidecar::store::Level;
use http::StatusCode;
use rustix::process::{Pid, Resource, Rlimit, Signal, prlimit};

use crate::support::{
    Client, ControlGroup, Heir, Process, Sidecar, SidecarProcess, SmallDisk, eventually, within,
};

fn put(dir: &Path, text: &str) {
    fs::create_dir_all(dir.join("acme")).unwrap();
    // As an editor does: lookups never see half a file.
    fs::write(dir.join("acme/.new"), text).unwrap();
    fs::rename(dir.join("acme/.new"), dir.join("acme/chat.json")).unwrap();
}

#[tokio::test]
async fn a_mount_over_policies_dir_or_off_it_is_soon_noticed() {
    let Some(disk) = SmallDisk::mount("1m") else {
        return;
    };
    put(disk.path(), r#"{"v":1}"#);
    let sidecar = Sidecar::try_start(&format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0'}}\nshutdown: {{lame_duck_ms: 10}}\n\
         heir_policy_store_enabled: false\npolicies_dir: {}",
        disk.path().display()
    ))
    .unwrap();
    let client = sidecar.client();
    assert_eq!(client.policy("acme/chat").await.text(), r#"{"v":1}"#);
    // Long before the whole directory would be read for want of anything better, which is after a minute.
    disk.mount_another();
    within(30, "the mount over it is noticed", || async {
        client.policy("acme/chat").await.status == StatusCode::NOT_FOUND
    })
    .await;
    put(disk.path(), r#"{"v":2}"#);
    within(30, "what it holds is noticed", || async {
        client.policy("acme/chat").await.text() == r#"{"v":2}"#
    })
    .await;
    disk.unmount();
    within(30, "the old one is noticed", || async {
        client.policy("acme/chat").await.text() == r#"{"v":1}"#
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn a_pipe_in_the_place_of_the_configuration_holds_up_neither_a_reload_nor_the_end() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{}").await;
    let folder = tempfile::tempdir().unwrap();
    let mut sidecar =
        SidecarProcess::start(folder.path(), heir.address(), "shutdown: {lame_duck_ms: 10}\n").await;
    sidecar.wait_for("live").await;
    let (file, pipe) = (folder.path().join("sidecar.yaml"), folder.path().join("pipe"));
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    fs::rename(&pipe, &file).unwrap();
    sidecar.process.signal(Signal::HUP);
    let refused = "beamline_sidecar_config_reloads_total{outcome=\"refused\"} ";
    eventually("it is refused", || async {
        let scraped = sidecar.admin().get("/metrics").await;
        scraped
            .text()
            .lines()
            .any(|line| line.starts_with(refused) && !line.ends_with(" 0"))
    })
    .await;
    assert_eq!(sidecar.client().policy("acme/chat").await.status, StatusCode::OK);
    let log = sidecar.process.log().join("\n");
    assert!(log.contains("it is no regular file"), "{log}");
    sidecar.process.signal(Signal::TERM);
    assert_eq!(sidecar.process.wait(), Some(0));
}

#[test]
fn a_pipe_in_the_place_of_the_configuration_is_a_mistake_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let ended = crate::support::Ended::of(crate::support::program().args(["run", "--config"]).arg(&pipe));
    assert_eq!(ended.code, 64, "{}", ended.errors);
    assert!(ended.errors.contains("it is no regular file"), "{}", ended.errors);
    // What the shell hands over is read as it always was.
    let command = format!(
        "echo 'listen: [1]' | {} check --config /dev/stdin",
        env!("CARGO_BIN_EXE_beamline-sidecar")
    );
    let ended = crate::support::Ended::of(Command::new("sh").arg("-c").arg(command));
    assert!(
        format!("{}{}", ended.out, ended.errors).contains("listen"),
        "{}",
        ended.errors
    );
}

#[tokio::test]
async fn a_limit_on_the_size_of_files_ends_no_sidecar() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("acme/chat", "{}").await;
    let folder = tempfile::tempdir().unwrap();
    let mut sidecar =
        SidecarProcess::start(folder.path(), heir.address(), "shutdown: {lame_duck_ms: 10}\n").await;
    sidecar.wait_for("live").await;
    let limit = Rlimit {
        current: Some(4_096),
        maximum: Some(4_096),
    };
    prlimit(Some(sidecar.process.pid()), Resource::Fsize, limit).unwrap();
    let text = format!("{{\"v\":2,\"text\":\"{}\"}}", "x".repeat(10_000));
    heir.client().put_policy("acme/chat", text.clone()).await;
    eventually("the disk is said to be full for it", || async {
        let log = sidecar.process.log().join("\n");
        log.contains("The snapshot could not be written")
    })
    .await;
    assert_eq!(sidecar.client().policy("acme/chat").await.text(), text);
    sidecar.process.signal(Signal::TERM);
    assert_eq!(sidecar.process.wait(), Some(0));
}

#[tokio::test]
async fn without_a_thread_to_be_had_nothing_that_had_long_been_quiet_ends() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", r#"{"v":1}"#).await;
    // Without places of files, which are looked at every second, its threads have nothing to do.
    let process = Process::start(
        &["run"],
        &[
            ("BEAMLINE_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_URL", &heir.url()),
            ("BEAMLINE_HEIR_HEALTH_INTERVAL_MS", "60000"),
        ],
    );
    let data = Client::new(&process.listen[0]);
    eventually("HEIR's policy is there", || async {
        data.policy("t/a").await.status == StatusCode::OK
    })
    .await;
    eventually("threads without work have ended", || async {
        waiting_for_files(process.pid()) <= 1
    })
    .await;
    // Longer than the last one would be there for want of work, which decides what is seen and not what is right.
    tokio::time::sleep(Duration::from_secs(11)).await;
    let group = ControlGroup::of_threads(process.pid());
    group.allow_threads(false);
    heir.client().put_policy("t/a", r#"{"v":2}"#).await;
    eventually("HEIR's change is there", || async {
        data.policy("t/a").await.text() == r#"{"v":2}"#
    })
    .await;
    assert_eq!(data.put_policy("t/b", "{}").await.status, StatusCode::CREATED);
    for bad in ["A bug", "A background task died"] {
        let log = process.log();
        assert!(!log.iter().any(|line| line.contains(bad)), "{log:?}");
    }
    group.allow_threads(true);
}

/// Threads of a process that wait for files: those of its first runtime.
fn waiting_for_files(pid: Pid) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", pid.as_raw_nonzero())).unwrap();
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("comm")).ok())
        .filter(|name| name.starts_with("tokio-"))
        .count()
}

#[tokio::test]
async fn without_a_thread_to_be_had_everything_goes_on_and_files_are_read_once_there_is_one() {
    let heir = Heir::start(Level::Changes).await;
    heir.client().put_policy("t/a", r#"{"v":1}"#).await;
    let (policies, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    put(policies.path(), r#"{"v":1}"#);
    let process = Process::start(
        &["run"],
        &[
            ("BEAMLINE_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_URL", &heir.url()),
            ("BEAMLINE_REFRESH_INTERVAL_MS", "100"),
            ("BEAMLINE_STATE_DIR", state.path().to_str().unwrap()),
            ("BEAMLINE_POLICIES_DIR", policies.path().to_str().unwrap()),
        ],
    );
    let (data, admin) = (
        Client::new(&process.listen[0]),
        Client::new(process.admin.unwrap()),
    );
    let says = |text: &str| process.log().iter().any(|line| line.contains(text));
    eventually("HEIR's policy is there", || async {
        data.policy("t/a").await.status == StatusCode::OK && state.path().join("snapshot").exists()
    })
    .await;
    let group = ControlGroup::of_threads(process.pid());
    group.allow_threads(false);
    let saved = fs::read(state.path().join("snapshot")).unwrap();
    heir.client().put_policy("t/a", r#"{"v":2}"#).await;
    assert_eq!(data.put_policy("t/b", "{}").await.status, StatusCode::CREATED);
    put(policies.path(), r#"{"v":2}"#);
    process.signal(Signal::HUP);
    eventually("the want of threads is told", || async {
        says("the system has no thread for it")
    })
    .await;
    assert_eq!(data.policy("acme/chat").await.text(), r#"{"v":1}"#);
    eventually("HEIR's change is there and on the disk", || async {
        data.policy("t/a").await.text() == r#"{"v":2}"#
            && fs::read(state.path().join("snapshot")).is_ok_and(|now| now != saved)
    })
    .await;
    for path in ["/live", "/ready", "/metrics"] {
        assert_eq!(admin.get(path).await.status, StatusCode::OK, "{path}");
    }
    group.allow_threads(true);
    process.signal(Signal::HUP);
    eventually("the file is read", || async {
        data.policy("acme/chat").await.text() == r#"{"v":2}"#
    })
    .await;
    for bad in ["A bug", "A background task died"] {
        assert!(!says(bad), "{:?}", process.log());
    }
}
