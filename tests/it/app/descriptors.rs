//! Descriptors that run out: what clients take is taken from nothing else.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use beamline_sidecar::store::Level;
use http::StatusCode;
use rustix::process::{Resource, Rlimit, getrlimit, prlimit};
use tokio::net::TcpStream;

use crate::support::{Client, Heir, Process, eventually};

fn environment<'a>(heir: &'a str, more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let mut all = vec![
        ("BEAMLINE_LISTEN", "127.0.0.1:0"),
        ("BEAMLINE_ADMIN_LISTEN", "127.0.0.1:0"),
        ("BEAMLINE_HEIR_URL", heir),
        ("BEAMLINE_REFRESH_INTERVAL_MS", "100"),
    ];
    all.extend_from_slice(more);
    all
}

/// Connects and never says a word.
async fn silent(address: impl ToString, count: usize) -> Vec<TcpStream> {
    let address = address.to_string();
    let mut connections = Vec::new();
    for _ in 0..count {
        connections.push(TcpStream::connect(&address).await.unwrap());
    }
    connections
}

async fn is_live(admin: &Client) -> bool {
    admin.get("/ready").await.json()["state"] == "live"
}

fn says(process: &Process, what: &str) -> bool {
    process.log().iter().any(|line| line.contains(what))
}

#[tokio::test]
async fn connections_that_take_all_they_can_leave_probes_and_heir_their_descriptors() {
    let heir = Heir::start(Level::Changes).await;
    heir.client()
        .put_policy("acme/chat", "{\"weights\":{\"a\":1.0}}")
        .await;
    let process = Process::start_with_open_files(600, &["run"], &environment(&heir.url(), &[]));
    assert!(says(&process, "does not fit into the limit of open files"));
    let (data, admin) = (&process.listen[0], Client::new(process.admin.unwrap()));
    eventually("live", || async { is_live(&admin).await }).await;

    let silent = silent(data, 700).await;
    for _ in 0..3 {
        for path in ["/live", "/ready", "/metrics"] {
            let probe = Client::new(process.admin.unwrap());
            assert_eq!(probe.get(path).await.status, StatusCode::OK, "{path}");
        }
    }
    // HEIR is reached by a new connection, for a key that only it has.
    heir.client()
        .put_policy("acme/new", "{\"weights\":{\"b\":1.0}}")
        .await;
    eventually("what HEIR has now is here", || async {
        Client::new(data).policy("acme/new").await.status == StatusCode::OK
    })
    .await;
    assert!(!says(&process, "Could not accept"), "{:?}", process.log());
    drop(silent);
}

#[tokio::test]
async fn the_soft_limit_of_open_files_is_raised_to_the_hard_one() {
    let process = Process::start(
        &["run"],
        &environment(
            "http://127.0.0.1:9",
            &[("BEAMLINE_LIMITS_MAX_CONNECTIONS", "100000")],
        ),
    );
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", process.pid().as_raw_nonzero())).unwrap();
    let line = limits
        .lines()
        .find(|line| line.starts_with("Max open files"))
        .unwrap();
    let words: Vec<_> = line.split_whitespace().collect();
    assert_eq!(words[3], words[4], "{line}");
}

#[tokio::test]
async fn connections_that_never_say_a_word_are_closed_on_every_listener() {
    let process = Process::start(
        &["run"],
        &environment(
            "http://127.0.0.1:9",
            &[("BEAMLINE_LIMITS_READ_TIMEOUT_MS", "300")],
        ),
    );
    for address in [process.listen[0].clone(), process.admin.unwrap().to_string()] {
        for connection in silent(&address, 2).await {
            let mut byte = [0; 1];
            let read = async {
                connection.readable().await.unwrap();
                connection.try_read(&mut byte)
            };
            // The idle time-out is five minutes, or half of one.
            let read = tokio::time::timeout(std::time::Duration::from_secs(20), read).await;
            assert_eq!(read.unwrap().unwrap(), 0, "{address}");
        }
    }
}

#[tokio::test]
async fn silent_connections_on_the_admin_listener_keep_no_probe_from_its_answer() {
    let process = Process::start(&["run"], &environment("http://127.0.0.1:9", &[]));
    let admin = process.admin.unwrap();
    let silent = silent(admin, 1_100).await;
    for _ in 0..3 {
        let client = Client::new(admin);
        let probe = client.get("/live");
        let answer = tokio::time::timeout(std::time::Duration::from_secs(20), probe).await;
        assert_eq!(answer.unwrap().status, StatusCode::OK);
    }
    drop(silent);
}

#[tokio::test]
async fn connections_that_cannot_be_accepted_are_told_of_once_a_second_and_accepted_as_soon_as_they_can_be() {
    let process = Process::start(&["run"], &environment("http://127.0.0.1:9", &[]));
    let data = process.listen[0].clone();
    let admin = Client::new(process.admin.unwrap());
    let errors = async || {
        let metrics = admin.get("/metrics").await;
        let of_data = metrics
            .text()
            .lines()
            .find_map(|line| line.strip_prefix("beamline_sidecar_accept_errors_total{listener=\"data\"} "));
        of_data.unwrap().parse::<u64>().unwrap()
    };
    assert_eq!(errors().await, 0);
    // The process has raised it to its hard one, which is that of this process.
    let all = getrlimit(Resource::Nofile).maximum;
    let limit = |current| {
        let limit = Rlimit {
            current,
            maximum: all,
        };
        prlimit(Some(process.pid()), Resource::Nofile, limit).unwrap();
    };
    limit(Some(3));
    let began = std::time::Instant::now();
    let waits = silent(&data, 1).await;
    eventually("it has failed many times", || async { errors().await >= 30 }).await;
    let lines = process
        .log()
        .iter()
        .filter(|line| line.contains("Could not accept"))
        .count() as u64;
    assert!((1..=began.elapsed().as_secs() + 1).contains(&lines), "{lines}");
    limit(all);
    let answer = Client::new(&data).policy("t/none").await;
    assert!(answer.status.is_server_error(), "without HEIR: {}", answer.status);
    drop(waits);
}
