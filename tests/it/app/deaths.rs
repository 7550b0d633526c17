//! A worker that dies ten times below its supervisor, in every way that a process can, while it is asked all the time.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{fs, path::Path, sync::atomic::Ordering::SeqCst, time::Duration};

use http::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use super::supervised::{Asking, CLIENTS, heir, resident_kib, start_with, worker};
use crate::{
    decide::{decide, outcome, request},
    support::{Client, Process, eventually},
};

const DEATHS: [Signal; 10] = [
    Signal::KILL,
    Signal::SEGV,
    Signal::ABORT,
    Signal::STOP,
    Signal::KILL,
    Signal::KILL,
    Signal::ABORT,
    Signal::STOP,
    Signal::SEGV,
    Signal::KILL,
];

/// What a supervisor and its worker have of the machine: descriptors of each, sockets among them, and processes.
fn taken(process: &Process) -> Vec<(String, usize)> {
    let mut taken = vec![("processes".to_owned(), process.children().len())];
    for (name, pid) in [("supervisor", process.pid()), ("worker", process.children()[0])] {
        let opened = descriptors(pid);
        let sockets = opened.iter().filter(|what| what.starts_with("socket:")).count();
        taken.push((format!("descriptors of the {name}"), opened.len()));
        taken.push((format!("sockets of the {name}"), sockets));
    }
    taken
}

fn descriptors(pid: Pid) -> Vec<String> {
    let opened = fs::read_dir(format!("/proc/{}/fd", pid.as_raw_nonzero())).unwrap();
    // Some are closed meanwhile.
    let what = |entry: fs::DirEntry| fs::read_link(entry.path()).ok();
    opened
        .filter_map(|entry| what(entry.ok()?))
        .map(|link| link.display().to_string())
        .collect()
}

async fn session(client: &Client) -> String {
    let asked = request("t", "sticky", json!({"session_id": "ada"}));
    outcome(&decide(client, &asked, &[]).await)
}

/// Kills it, and waits for the next.
async fn die(process: &Process, admin: &Client, running: Pid, signal: Signal) -> Pid {
    kill_process(running, signal).unwrap();
    // The first is taken for a trap of an extension, and is none: a fault would come again and again.
    while signal == Signal::SEGV && process.children().contains(&running) {
        let _gone = kill_process(running, signal);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    worker(process.pid(), admin, Some(running)).await
}

async fn writes(admin: &Client) -> Value {
    admin.get("/admin/writes").await.json()
}

fn persisted(dir: &Path) -> Vec<u8> {
    fs::read(dir.join("state/decisions")).unwrap_or_default()
}

#[tokio::test]
async fn a_worker_that_dies_ten_times_costs_what_was_in_flight_and_nothing_else() {
    let mut heir = heir().await;
    let sticky = json!({"weights": {"a": 0.5, "b": 0.5}, "sticky": {"enabled": true}});
    heir.client().put_policy("t/sticky", sticky.to_string()).await;
    let dir = tempfile::tempdir().unwrap();
    let more = [
        ("BEAMLINE_DECIDE_PERSIST", "true"),
        ("BEAMLINE_DECIDE_PERSIST_INTERVAL_MS", "100"),
    ];
    let (mut process, admin) = start_with(&heir.url(), dir.path(), &more);
    let mut running = worker(process.pid(), &admin, None).await;
    let client = Client::new(&process.listen[0]);
    eventually("the policies are on disk", || async {
        client.policy("t/sticky").await.status == StatusCode::OK && dir.path().join("state/snapshot").exists()
    })
    .await;
    // What it remembers, and what waits for HEIR, which is away from now on.
    let empty = persisted(dir.path());
    let first = session(&client).await.replace("weighted", "sticky");
    eventually("the session is on disk", || async {
        persisted(dir.path()) != empty
    })
    .await;
    heir.gone().await;
    let text = "{\"weights\":{\"waits\":1.0}}";
    let put = client.put_policy("t/waits", text).await;
    assert_eq!(put.header("x-beamline-write"), "queued", "{}", put.text());
    // A first one has opened whatever a start opens.
    running = die(&process, &admin, running, Signal::KILL).await;
    let (before, resident) = (taken(&process), resident_kib(process.pid()));

    let asking = Asking::start(&process.listen[0]);
    for signal in DEATHS {
        let answered = asking.answered.load(SeqCst);
        eventually("all is well", || async {
            asking.answered.load(SeqCst) > answered + 50
        })
        .await;
        running = die(&process, &admin, running, signal).await;
        let client = Client::new(&process.listen[0]);
        assert_eq!(session(&client).await, first, "after {signal:?}");
        assert_eq!(client.policy("t/waits").await.text(), text, "after {signal:?}");
        assert_eq!(writes(&admin).await["queued"], 1, "after {signal:?}");
    }
    let failed = asking.stop().await;
    assert!(failed <= CLIENTS * DEATHS.len() as u32, "{failed}");

    let metrics = admin.get("/metrics").await;
    for (cause, count) in [("signal", 9), ("hung", 2), ("exit", 0)] {
        let line = format!("beamline_sidecar_worker_restarts_total{{cause=\"{cause}\"}} {count}\n");
        assert!(metrics.text().contains(&line), "{line}");
    }
    let said = |cause: &str| {
        let cause = format!("\"cause\":\"{cause}\"");
        process.log().iter().filter(|line| line.contains(&cause)).count()
    };
    assert_eq!((said("signal 9"), said("signal 11"), said("it hung")), (5, 2, 2));
    drop((client, metrics));
    eventually("as many descriptors, sockets and processes as before", || async {
        taken(&process)
            .iter()
            .zip(&before)
            .all(|(now, before)| now.1 <= before.1)
    })
    .await;
    let now = resident_kib(process.pid());
    assert!(now <= resident + 256, "{resident} KiB became {now} KiB");

    heir.back().await;
    eventually("HEIR has the write", || async {
        heir.client().policy("t/waits").await.text() == text
    })
    .await;
    eventually("nothing waits", || async { writes(&admin).await["queued"] == 0 }).await;
    process.signal(Signal::TERM);
    assert_eq!(process.wait(), Some(0));
}
