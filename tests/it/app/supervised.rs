//! `run --supervised`: a worker that dies or hangs is replaced before anybody is refused, and one program by the next.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::SeqCst},
    },
    time::Duration,
};

use beamline_sidecar::store::Level;
use http::{Method, StatusCode};
use rustix::process::{Pid, Signal, kill_process};
use tokio::task::JoinHandle;

use crate::support::{Client, Ended, Heir, Process, eventually, program};

/// How many clients ask all the time.
const CLIENTS: u32 = 4;

fn start(heir: &str, dir: &Path) -> (Process, Client) {
    let state = dir.join("state");
    let listen = format!("127.0.0.1:0,unix:{}", dir.join("data.sock").display());
    let process = Process::start(
        &["run", "--supervised"],
        &[
            ("BEAMLINE_LISTEN", &listen),
            ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
            ("BEAMLINE_HEIR_URL", heir),
            ("BEAMLINE_REFRESH_INTERVAL_MS", "100"),
            ("BEAMLINE_SHUTDOWN_LAME_DUCK_MS", "200"),
            ("BEAMLINE_RUNTIME_STUCK_AFTER_MS", "1000"),
            ("BEAMLINE_STATE_DIR", state.to_str().unwrap()),
        ],
    );
    let admin = Client::new(process.admin.unwrap());
    (process, admin)
}

/// The processes that this one has started.
fn children(process: &Process) -> Vec<Pid> {
    let pid = process.pid().as_raw_nonzero();
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace();
    children
        .map(|pid| Pid::from_raw(pid.parse().unwrap()).unwrap())
        .collect()
}

/// The worker, once it is another one than `not` and says that it can answer.
async fn worker(process: &Process, admin: &Client, not: Option<Pid>) -> Pid {
    let found = || children(process).into_iter().find(|pid| Some(*pid) != not);
    eventually("another worker answers", || async {
        found().is_some()
            && children(process).len() == 1
            && admin
                .send(Method::GET, "/ready", &[], "")
                .await
                .is_ok_and(|answer| answer.status == StatusCode::OK)
    })
    .await;
    found().unwrap()
}

/// Clients that ask without a pause, until they are stopped.
struct Asking {
    stop: Arc<AtomicBool>,
    failed: Arc<AtomicU32>,
    answered: Arc<AtomicU32>,
    clients: Vec<JoinHandle<()>>,
}

impl Asking {
    fn start(address: &str) -> Self {
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
    async fn stop(self) -> u32 {
        self.stop.store(true, SeqCst);
        for client in self.clients {
            client.await.unwrap();
        }
        self.failed.load(SeqCst)
    }
}

async fn heir() -> Heir {
    let heir = Heir::start(Level::Changes).await;
    for id in 0..200 {
        let name = format!("t/{id}");
        heir.client().put_policy(&name, "{\"weights\":{\"a\":1.0}}").await;
    }
    heir
}

#[tokio::test]
async fn a_worker_that_dies_or_hangs_costs_what_was_in_flight_and_nothing_else() {
    let heir = heir().await;
    let dir = tempfile::tempdir().unwrap();
    let (mut process, admin) = start(&heir.url(), dir.path());
    let mut running = worker(&process, &admin, None).await;
    let snapshot = dir.path().join("state/snapshot");
    eventually("it is on disk", || async { snapshot.exists() }).await;
    let asking = Asking::start(&process.listen[0]);
    let deaths = [
        Signal::KILL,
        Signal::SEGV,
        Signal::ABORT,
        Signal::STOP,
        Signal::KILL,
    ];
    for signal in deaths {
        let before = asking.answered.load(SeqCst);
        eventually("all is well", || async {
            asking.answered.load(SeqCst) > before + 50
        })
        .await;
        kill_process(running, signal).unwrap();
        // The first is taken for a trap of an extension, and is none: a fault would come again and again.
        while signal == Signal::SEGV && children(&process).contains(&running) {
            let _gone = kill_process(running, signal);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        running = worker(&process, &admin, Some(running)).await;
    }
    let failed = asking.stop().await;
    assert!(
        failed <= CLIENTS * u32::try_from(deaths.len()).unwrap(),
        "{failed}"
    );
    let metrics = admin.get("/metrics").await;
    for (cause, count) in [("signal", 4), ("hung", 1), ("exit", 0)] {
        let line = format!("beamline_sidecar_worker_restarts_total{{cause=\"{cause}\"}} {count}\n");
        assert!(metrics.text().contains(&line), "{line}");
    }
    let said = |cause: &str| {
        let cause = format!("\"cause\":\"{cause}\"");
        process.log().iter().filter(|line| line.contains(&cause)).count()
    };
    assert_eq!((said("signal 9"), said("signal 11"), said("it hung")), (2, 1, 1));

    // Signals pass through, and nothing is left behind.
    process.signal(Signal::HUP);
    assert_eq!(worker(&process, &admin, None).await, running);
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), Some(0));
    assert!(!dir.path().join("data.sock").exists());
    assert!(kill_process(running, Signal::CONT).is_err(), "the worker is gone");
}

#[tokio::test]
async fn a_worker_that_is_told_to_end_by_somebody_else_is_replaced() {
    let heir = heir().await;
    let dir = tempfile::tempdir().unwrap();
    let (process, admin) = start(&heir.url(), dir.path());
    let first = worker(&process, &admin, None).await;
    kill_process(first, Signal::TERM).unwrap();
    worker(&process, &admin, Some(first)).await;
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
    let running = worker(&process, &admin, None).await;
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
    let mut running = worker(&process, &admin, None).await;
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
        running = worker(&process, &admin, Some(running)).await;
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
