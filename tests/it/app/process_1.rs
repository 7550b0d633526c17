//! The supervisor as process 1, which it is in a container: what is left behind is its child, and signals have no effect but
//! the one that it gives them.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::supervised::worker;
use crate::support::{Client, Ended, Process, as_process_1, children, eventually, program};

fn start(more: &[(&str, &str)]) -> (Process, Pid, Client) {
    let dir = env!("CARGO_TARGET_TMPDIR");
    let mut environment = vec![
        ("BEAMLINE_LISTEN", "127.0.0.1:0"),
        ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
        ("BEAMLINE_HEIR_POLICY_STORE_ENABLED", "false"),
        ("BEAMLINE_POLICIES_DIR", dir),
        ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "0"),
    ];
    environment.extend(more);
    let process = Process::start_as_process_1(&["run", "--supervised"], &environment);
    let admin = Client::new(process.admin.unwrap());
    let supervisor = process.children()[0];
    (process, supervisor, admin)
}

fn says(process: &Process, what: &str) -> bool {
    process.log().iter().any(|line| line.contains(what))
}

#[tokio::test]
async fn as_process_1_it_reaps_what_is_left_to_it_and_its_worker_alone_is_replaced() {
    let (_process, supervisor, admin) = start(&[]);
    let running = worker(supervisor, &admin, None).await;
    // A shell that starts something inside, and ends before it.
    let left = Command::new("nsenter")
        .args(["--target", &supervisor.as_raw_nonzero().to_string()])
        .args(["--pid", "--mount", "sh", "-c", "sleep 1000 >/dev/null 2>&1 &"])
        .status();
    assert!(left.unwrap().success());
    let orphan = || children(supervisor).into_iter().find(|pid| *pid != running);
    eventually("what was left is its child", || async { orphan().is_some() }).await;
    kill_process(orphan().unwrap(), Signal::KILL).unwrap();
    eventually("it is waited for", || async { children(supervisor) == [running] }).await;
    // One of its own is more to it.
    kill_process(running, Signal::KILL).unwrap();
    worker(supervisor, &admin, Some(running)).await;
    let metrics = admin.get("/metrics").await;
    assert!(
        metrics
            .text()
            .contains("worker_restarts_total{cause=\"signal\"} 1"),
        "{}",
        metrics.text()
    );
}

#[tokio::test]
async fn as_process_1_it_passes_signals_on() {
    for signal in [Signal::TERM, Signal::INT] {
        let (mut process, supervisor, admin) = start(&[]);
        let running = worker(supervisor, &admin, None).await;
        kill_process(supervisor, Signal::HUP).unwrap();
        eventually("the worker has read its configuration again", || async {
            says(&process, "The configuration was read again.")
        })
        .await;
        assert_eq!(children(supervisor), [running]);
        kill_process(supervisor, signal).unwrap();
        assert_eq!(process.wait(), Some(0), "{signal:?}");
        eventually("the log is read to its end", || async {
            says(&process, "Stopped.")
        })
        .await;
    }
}

#[tokio::test]
async fn as_process_1_it_ends_as_its_worker_ends() {
    // The second signal ends it at once, with the status for it.
    let (mut process, supervisor, admin) = start(&[("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "600000")]);
    worker(supervisor, &admin, None).await;
    kill_process(supervisor, Signal::TERM).unwrap();
    eventually("the first one is heeded", || async { says(&process, "Stopping") }).await;
    kill_process(supervisor, Signal::TERM).unwrap();
    assert_eq!(process.wait(), Some(1));

    let mut never = as_process_1();
    never
        .arg(program().get_program())
        .args(["run", "--supervised"])
        .env("BEAMLINE_LISTEN", "nowhere");
    let ended = Ended::of(&mut never);
    assert_eq!(ended.code, 64, "{}", ended.errors);
    assert!(ended.errors.contains("listen"), "{}", ended.errors);
}
