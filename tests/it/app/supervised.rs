//! `run --supervised`: a worker that dies or hangs is replaced before anybody is refused, and one program by the next.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
};

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

use crate::support::{Client, Ended, Heir, Process, children, eventually, program};

/// How many clients ask all the time.
pub(super) const CLIENTS: u32 = 4;

fn start(heir: &str, dir: &Path) -> (Process, Client) {
    start_with(heir, dir, &[])
}

pub(super) fn start_with(heir: &str, dir: &Path, more: &[(&str, &str)]) -> (Process, Client) {
    let state = dir.join("state");
    let listen = format!("127.0.0.1:0,unix:{}", dir.join("data.sock").display());
    let mut environment = vec![
        ("BEAMLINE_LISTEN", &*listen),
        ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
        ("BEAMLINE_HEIR_URL", heir),
        ("BEAMLINE_REFRESH_INTERVAL_MS", "100"),
        ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "200"),
        ("BEAMLINE_RUNTIME_STUCK_AFTER_MS", "1000"),
        ("BEAMLINE_STATE_DIR", state.to_str().unwrap()),
    ];
    environment.extend(more);
    let process = Process::start(&["run", "--supervised"], &environment);
    let admin = Client::new(process.admin.unwrap());
    (process, admin)
}

/// The worker, once it is another one than `not` and says that it can answer.
pub(super) async fn worker(supervisor: Pid, admin: &Client, not: Option<Pid>) -> Pid {
    let found = || children(supervisor).into_iter().find(|pid| Some(*pid) != not);
    eventually("another worker answers", || async {
        found().is_some()
            && children(supervisor).len() == 1
            && admin
                .send(Method::GET, "/ready", &[], "")
                .await
                .is_ok_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
    found().unwrap()
}

/// Clients that ask without a pause, until they are stopped.
pub(super) struct Asking {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU32>,
    pub(super) answered: Arc<AtomicU32>,
    clients: Vec<JoinHandle<()>>,
}

impl Asking {
    pub(super) fn start(address: &str) -> Self {
        let (stop, failed, answered) = (
            Arc::<AtomicBool>::default(),
            Arc::<AtomicU32>::default(),
            Arc::<AtomicU32>::default(),
        );
        let clients = (0..CLIENTS)
            .map(|_| {
                let client = Client::new(address);
                let (stop, failed, answered) = (stop.clone(), failed.clone(), answered.clone());
                tokio::spawn(async move {
                    while !stop.load(SeqCst) {
                        match client.send(Method::GET, "/api/v1/policies/t/1", &[], "").await {
                            Ok(answer) => {
                                assert_eq!(answer.status, StatusCode::OK, "{}", answer.text());
                                answered.fetch_add(1, SeqCst);
                            }
                            Err(error) => {
                                assert!(!error.contains("Error(Connect,"), "refused: {error}");
                                failed.fetch_add(1, SeqCst);
                            }
                        }
                    }
                })
            })
            .collect();
        Self {
            stop,
            failed,
            answered,
            clients,
        }
    }

    /// How many requests failed.
    pub(super) async fn stop(self) -> u32 {
        self.stop.store(true, SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        self.failed.load(SeqCst)
    }
}

pub(super) async fn heir() -> Heir {
    let heir = Heir::start(Level::Changes).await;
    for id in 0..200 {
        let name = format!("t/{id}");
        heir.client().put_policy(&name, "{\"weights\":{\"a\":1.0}}").await;
    }
    heir
}

#[tokio::test]
async fn signals_reach_the_worker_and_nothing_is_left_behind() {
    let heir = heir().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut process, admin) = start(&heir.url(), dir.path());
    let running = worker(process.pid(), &admin, None).await;
    process.signal(Signal::HUP);
    eventually("it is read again", || async {
        process
            .log()
            .iter()
            .any(|line| line.contains("The configuration was read again."))
    })
    .await;
    assert_eq!(worker(process.pid(), &admin, None).await, running);
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), Some(0));
    assert!(!dir.path().join("data.sock").exists());
    assert!(kill_process(running, Signal::CONT).is_err(), "the worker is gone");
}

/// What is resident of a process, in KiB.
pub(super) fn resident_kib(process: Pid) -> u64 {
    let rollup = std::fs::read_to_string(format!("/proc/{}/smaps_rollup", process.as_raw_nonzero())).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Rss:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

#[tokio::test]
async fn the_supervisor_is_a_small_program() {
    let heir = heir().await;
    let dir = tempfile::tempdir().unwrap();
    let (process, admin) = start(&heir.url(), dir.path());
    worker(process.pid(), &admin, None).await;
    let resident = resident_kib(process.pid());
    // 1.8 MiB as it is released, 1.3 MiB of which are pages of the C library that the worker has as well. Without
    // optimisation the program is three times as large.
    let most = if cfg!(debug_assertions) { 3 << 10 } else { 2 << 10 };
    assert!(resident <= most, "{resident} KiB");
}

#[tokio::test]
async fn without_the_supervisors_program_it_says_what_is_missing() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let alone = dir.path().join("beamline-sidecar");
    std::fs::hard_link(program().get_program(), &alone).unwrap();
    let ended = Ended::of(std::process::Command::new(alone).args(["run", "--supervised"]));
    assert_eq!(ended.code, 1, "{}", ended.errors);
    let named = dir.path().join("beamline-sidecar-supervisor: ");
    assert!(ended.errors.contains(named.to_str().unwrap()), "{}", ended.errors);
    assert!(
        ended.errors.contains("leave --supervised out"),
        "{}",
        ended.errors
    );
    // It has no other use.
    let ended = Ended::of(&mut std::process::Command::new(env!(
        "CARGO_BIN_EXE_beamline-sidecar-supervisor"
    )));
    assert_eq!(ended.code, 64, "{}", ended.errors);
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_by_somebody_else_is_replaced() {
    let heir = heir().await;
    let dir = tempfile::tempdir().unwrap();
    let (process, admin) = start(&heir.url(), dir.path());
    let first = worker(process.pid(), &admin, None).await;
    kill_process(first, Signal::TERM).unwrap();
    worker(process.pid(), &admin, Some(first)).await;
    let metrics = admin.get("/metrics").await;
    assert!(
        metrics.text().contains("worker_restarts_total{cause=\"exit\"} 1"),
        "{}",
        metrics.text()
    );
}

#[tokio::test]
async fn a_sidecar_that_can_never_start_ends_with_its_own_status_and_words() {
    let mut command = program();
    command
        .args(["run", "--supervised"])
        .env("BEAMLINE_LISTEN", "nowhere");
    let ended = Ended::of(&mut command);
    assert_eq!(ended.code, 64, "{}", ended.errors);
    assert!(ended.errors.contains("listen"), "{}", ended.errors);
}

#[tokio::test]
async fn a_supervisor_that_is_killed_takes_its_worker_along() {
    let heir = heir().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut process, admin) = start(&heir.url(), dir.path());
    let running = worker(process.pid(), &admin, None).await;
    process.kill();
    eventually("the worker is gone", || async {
        kill_process(running, Signal::CONT).is_err()
    })
    .await;
}

#[tokio::test]
async fn a_program_is_replaced_by_the_next_without_a_failed_request_or_a_stranded_write() {
    let mut heir = heir().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut process, admin) = start(&heir.url(), dir.path());
    let mut running = worker(process.pid(), &admin, None).await;
    let asking = Asking::start(&process.listen[0]);
    for turn in 0..3 {
        let before = asking.answered.load(SeqCst);
        eventually("all is well", || async {
            asking.answered.load(SeqCst) > before + 50
        })
        .await;
        // A write that waits for HEIR goes to the next one.
        heir.gone().await;
        let name = format!("t/waits-{turn}");
        let put = Client::new(&process.listen[0])
            .put_policy(&name, "{\"weights\":{\"b\":1.0}}")
            .await;
        assert!(put.status.is_success(), "{}", put.text());
        process.signal(Signal::USR2);
        running = worker(process.pid(), &admin, Some(running)).await;
        heir.back().await;
        eventually("HEIR has it", || async {
            heir.client().policy(&name).await.status == StatusCode::OK
        })
        .await;
    }
    assert_eq!(asking.stop().await, 0);
    eventually("nothing waits", || async {
        admin.get("/admin/writes").await.json()["queued"] == 0
    })
    .await;
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), Some(0));
}

#[tokio::test]
async fn without_a_supervisor_it_is_as_good_a_service_of_systemd() {
    let dir = tempfile::tempdir().unwrap();
    let manager = tokio::net::UnixDatagram::bind(dir.path().join("notify")).unwrap();
    let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = socket.local_addr().unwrap().to_string();
    let mut process = Process::start_with_socket(
        socket.try_clone().unwrap().into(),
        &["run"],
        &[
            ("BEAMLINE_LISTEN", &address),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_POLICY_STORE_ENABLED", "false"),
            ("BEAMLINE_POLICIES_DIR", dir.path().to_str().unwrap()),
            ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "0"),
            ("NOTIFY_SOCKET", dir.path().join("notify").to_str().unwrap()),
        ],
    );
    let heard = async |what: &str| {
        let mut bytes = [0; 256];
        loop {
            let length = manager.recv(&mut bytes).await.unwrap();
            if &bytes[..length] == what.as_bytes() {
                return;
            }
        }
    };
    heard("READY=1").await;
    heard("WATCHDOG=1").await;
    // This test holds the same socket, so that nobody else could have bound the address.
    assert_eq!(process.listen[0], address);
    assert_eq!(
        Client::new(&address).policy("t/1").await.status,
        StatusCode::NOT_FOUND
    );
    process.signal(Signal::TERM);
    heard("STOPPING=1").await;
    assert_eq!(process.wait(), Some(0));
}

/// What is killed before it can answer, be it by the kernel for its memory, says nothing of the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_are_killed_before_they_answer_are_replaced_until_one_does() {
    let heir = Heir::start(Level::Changes).await;
    let dir = tempfile::tempdir().unwrap();
    let (process, admin) = start(&heir.url(), dir.path());
    let mut last = worker(process.pid(), &admin, None).await;
    kill_process(last, Signal::KILL).unwrap();
    for _ in 0..8 {
        let next = || children(process.pid()).into_iter().find(|pid| *pid != last);
        eventually("another worker is started", || async { next().is_some() }).await;
        let found = next().unwrap();
        kill_process(found, Signal::KILL).unwrap();
        last = found;
    }
    worker(process.pid(), &admin, Some(last)).await;
}
