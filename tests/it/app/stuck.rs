//! A thread that answers the Router and does not run any more.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use http::StatusCode;
use nix::{sys::ptrace, unistd::Pid};

use crate::support::{Client, Process, eventually};

/// The threads of a process by their names.
fn threads(process: &Process, name: &str) -> Vec<i32> {
    let tasks = format!("/proc/{}/task", process.pid().as_raw_nonzero());
    let mut found = Vec::new();
    for task in std::fs::read_dir(tasks).unwrap() {
        let task = task.unwrap();
        let is_named =
            std::fs::read_to_string(task.path().join("comm")).is_ok_and(|comm| comm.trim() == name);
        if is_named {
            found.push(task.file_name().to_str().unwrap().parse().unwrap());
        }
    }
    found
}

#[tokio::test]
async fn a_thread_that_is_stuck_shows_in_every_probe_and_so_does_its_return() {
    // Held while it waits, one thread of several would be missed by no request; one that is stuck while it runs is the
    // unit's test.
    let process = Process::start(
        &["run"],
        &[
            ("BEAMLINE_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_POLICY_STORE_ENABLED", "false"),
            ("BEAMLINE_POLICIES_DIR", env!("CARGO_MANIFEST_DIR")),
            ("BEAMLINE_RUNTIME_WORKERS", "1"),
            ("BEAMLINE_RUNTIME_STUCK_AFTER_MS", "1000"),
        ],
    );
    let admin = Client::new(process.admin.unwrap());
    eventually("live", || async {
        admin.get("/ready").await.status == StatusCode::OK
    })
    .await;
    assert_eq!(admin.get("/live").await.json()["status"], "live");

    // A debugger can hold one thread of a process; it must be let go by the thread that holds it.
    let thread = Pid::from_raw(threads(&process, "data")[0]);
    let (hold, held) = std::sync::mpsc::channel::<()>();
    let debugger = std::thread::spawn(move || {
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        nix::sys::wait::waitpid(thread, Some(nix::sys::wait::WaitPidFlag::__WALL)).unwrap();
        let _until_dropped = held.recv();
        ptrace::detach(thread, None).unwrap();
    });
    let says = |what| process.log().iter().any(|line| line.contains(what));
    eventually("stuck", || async { admin.get("/live").await.status == 503 }).await;
    assert_eq!(admin.get("/live").await.json()["status"], "stuck");
    let ready = admin.get("/ready").await;
    assert_eq!(ready.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        ready.json()["reason"],
        "a thread that answers the Router is stuck"
    );
    let metrics = admin.get("/metrics").await;
    let silence = metrics
        .text()
        .lines()
        .find_map(|line| line.strip_prefix("beamline_sidecar_data_thread_silence_seconds "))
        .unwrap()
        .parse::<f64>()
        .unwrap();
    assert!(silence > 1.0, "{silence}");
    eventually("it is logged", || async { says("is stuck") }).await;
    drop(hold);
    debugger.join().unwrap();
    eventually("live again", || async {
        admin.get("/live").await.status == StatusCode::OK
    })
    .await;
    assert_eq!(admin.get("/ready").await.status, StatusCode::OK);
    eventually("its return is logged", || async { says("run again") }).await;
}
