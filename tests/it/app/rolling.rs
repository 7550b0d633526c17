//! Sidecars that take over from each other under load, and ones that are stopped in the middle of something.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::Duration,
};

use http::{Method, StatusCode};
use rustix::process::Signal;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream},
    task::JoinSet,
};

use crate::support::{SidecarProcess, StoreProcess, within};

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

#[derive(Clone)]
enum Place {
    Tcp(std::net::SocketAddr),
    Unix(PathBuf),
}

impl Place {
    async fn connect(&self) -> std::io::Result<Box<dyn Duplex>> {
        Ok(match self {
            Self::Tcp(address) => Box::new(TcpStream::connect(address).await?),
            Self::Unix(path) => Box::new(UnixStream::connect(path).await?),
        })
    }
}

/// What one client did.
#[derive(Debug, Default)]
struct Done {
    answered: u64,
    /// Connections that were given up because the server asked for it, or had closed them while nothing was sent.
    told_to_go: u64,
    failed: Vec<String>,
}

/// Whether the server has closed a connection on which nothing is under way.
async fn is_closed(connection: &mut Box<dyn Duplex>) -> bool {
    tokio::select! {
        biased;
        _ = connection.read_u8() => true,
        () = std::future::ready(()) => false,
    }
}

/// One request and its whole answer: the status, and whether the server wants the connection closed.
async fn exchange(connection: &mut Box<dyn Duplex>, request: &str) -> Result<(u16, bool), String> {
    connection
        .write_all(request.as_bytes())
        .await
        .map_err(|error| format!("sending: {error}"))?;
    let mut answer = Vec::new();
    let mut whole = None;
    while whole.is_none_or(|whole| answer.len() < whole) {
        let read = connection.read_buf(&mut answer).await;
        if read.map_err(|error| format!("receiving: {error}"))? == 0 {
            return Err(format!("closed after {} bytes of the answer", answer.len()));
        }
        if whole.is_none()
            && let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n")
        {
            let head = String::from_utf8_lossy(&answer[..end]).to_ascii_lowercase();
            let length = head
                .lines()
                .find_map(|line| line.strip_prefix("content-length: "));
            let length: usize = length.map_or(0, |length| length.parse().unwrap());
            whole = Some(end + 4 + length);
        }
    }
    let head = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    Ok((
        head[9..12].parse().unwrap(),
        head.contains("\r\nconnection: close\r\n"),
    ))
}

async fn client(place: Place, number: usize, stop: Arc<AtomicBool>) -> Done {
    // Some make a connection for every request, and so meet a listener that closes.
    let keeps = number < 6;
    let mut done = Done::default();
    let mut connection: Option<Box<dyn Duplex>> = None;
    let mut round = 0;
    while !stop.load(SeqCst) {
        round += 1;
        if let Some(open) = &mut connection
            && is_closed(open).await
        {
            done.told_to_go += 1;
            connection = None;
        }
        let mut open = match connection.take() {
            Some(open) => open,
            None => match place.connect().await {
                Ok(open) => open,
                Err(error) => {
                    done.failed.push(format!("connecting: {error}"));
                    continue;
                }
            },
        };
        let body = format!("{{\"round\": {round}}}");
        let request = match round % 10 {
            0 => format!(
                "PUT /api/v1/policies/acme/c{number} HTTP/1.1\r\nhost: x\r\ncontent-length: {}\r\n\r\n{body}",
                body.len()
            ),
            _ => "GET /api/v1/policies/acme/p HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        };
        match exchange(&mut open, &request).await {
            Ok((200 | 201, close)) => {
                done.answered += 1;
                done.told_to_go += u64::from(close);
                connection = (!close && keeps).then_some(open);
            }
            Ok((status, _)) => done.failed.push(format!("{status} to {request}")),
            Err(error) => done.failed.push(format!("{error}, to {request}")),
        }
        // Shorter than the time in which the server says that it is about to go.
        tokio::time::sleep(Duration::from_millis(number as u64 % 4)).await;
    }
    done
}

async fn successor(folder: &Path, number: usize, store: &StoreProcess, port: u16) -> SidecarProcess {
    let dir = folder.join(format!("sidecar-{number}"));
    std::fs::create_dir(&dir).unwrap();
    let socket = folder.join("s.sock");
    let yaml = format!(
        "
listen: ['127.0.0.1:{port}', 'unix:{}']
reuse_port: true
shutdown: {{lame_duck_ms: 3000, drain_timeout_ms: 10000}}
",
        socket.display()
    );
    let sidecar = SidecarProcess::start(&dir, store.address(), &yaml).await;
    sidecar.wait_for("live").await;
    sidecar
}

/// Waits for a process to end, which must not hold up the others here.
fn exit_code(sidecar: &mut SidecarProcess) -> Option<i32> {
    tokio::task::block_in_place(|| sidecar.process.wait())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 3)]
async fn a_rolling_restart_under_load_fails_no_request() {
    let folder = tempfile::tempdir().unwrap();
    let store = StoreProcess::start(&folder.path().join("heir.db"), None).await;
    store.client().put_policy("acme/p", r#"{"a":1}"#).await;
    let mut current = successor(folder.path(), 0, &store, 0).await;
    let address = current.data;
    let stop = Arc::new(AtomicBool::new(false));
    let mut clients = JoinSet::new();
    for number in 0..10 {
        let place = if number % 2 == 0 {
            Place::Tcp(address)
        } else {
            Place::Unix(folder.path().join("s.sock"))
        };
        clients.spawn(client(place, number, stop.clone()));
    }
    for number in 1..=3 {
        let next = successor(folder.path(), number, &store, address.port()).await;
        assert_eq!(next.data, address);
        current.process.signal(Signal::TERM);
        assert_eq!(exit_code(&mut current), Some(0), "{:?}", current.process.log());
        current = next;
    }
    stop.store(true, SeqCst);
    let mut told_to_go = 0;
    for done in clients.join_all().await {
        assert_eq!(
            done.failed,
            Vec::<String>::new(),
            "after {} answers",
            done.answered
        );
        assert!(done.answered > 0);
        told_to_go += done.told_to_go;
    }
    // Six clients keep their connections, and each of three sidecars sent them away.
    assert!(told_to_go >= 18, "{told_to_go}");
    current.process.signal(Signal::TERM);
    assert_eq!(exit_code(&mut current), Some(0));
    assert!(!folder.path().join("s.sock").exists());
}

/// A sidecar with three requests under way to a store that does not answer.
async fn in_the_middle(
    folder: &Path,
) -> (
    StoreProcess,
    SidecarProcess,
    JoinSet<Result<(StatusCode, String), String>>,
) {
    let store = StoreProcess::start(&folder.join("heir.db"), None).await;
    let yaml = "  timeout_ms: 30000\nshutdown: {lame_duck_ms: 50, drain_timeout_ms: 60000}\n";
    let sidecar = SidecarProcess::start(folder, store.address(), yaml).await;
    sidecar.wait_for("live").await;
    store.pause();
    let mut requests = JoinSet::new();
    for (method, path, body) in [
        (Method::PUT, "/api/v1/policies/acme/a", r#"{"a":1}"#),
        (Method::GET, "/api/v1/policies/acme", ""),
        (Method::GET, "/api/v1/extensions", ""),
    ] {
        let client = sidecar.client();
        requests.spawn(async move {
            let answer = client.send(method, path, &[], body).await?;
            let queued = answer.header("x-beamline-write").to_owned();
            Ok((answer.status, queued))
        });
    }
    let admin = sidecar.admin();
    within(30, "three requests are under way", || async {
        let metrics = admin.get("/metrics").await;
        metrics
            .text()
            .lines()
            .any(|line| line == "beamline_sidecar_waiting_requests 3")
    })
    .await;
    sidecar.process.signal(Signal::TERM);
    within(30, "the sidecar is stopping", || async {
        let log = sidecar.process.log();
        log.iter().any(|line| line.contains("\"Stopping"))
    })
    .await;
    (store, sidecar, requests)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_is_told_to_stop_finishes_what_a_slow_heir_is_still_doing() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut sidecar, requests) = in_the_middle(folder.path()).await;
    // No new connection is accepted after the lame-duck time.
    within(30, "no connection is taken any more", || async {
        TcpStream::connect(sidecar.data).await.is_err()
    })
    .await;
    store.resume();
    let mut statuses: Vec<_> = requests
        .join_all()
        .await
        .into_iter()
        .map(Result::unwrap)
        .collect();
    statuses.sort();
    assert_eq!(
        statuses,
        [
            (StatusCode::OK, String::new()),
            (StatusCode::OK, String::new()),
            (StatusCode::CREATED, String::new()),
        ]
    );
    assert_eq!(exit_code(&mut sidecar), Some(0));
    assert_eq!(store.client().policy("acme/a").await.text(), r#"{"a":1}"#);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_signal_ends_it_at_once_and_its_exit_code_says_that_it_was_not_done() {
    let folder = tempfile::tempdir().unwrap();
    let (store, mut sidecar, requests) = in_the_middle(folder.path()).await;
    sidecar.process.signal(Signal::TERM);
    assert_eq!(exit_code(&mut sidecar), Some(1));
    // It did not wait for the 30 s that each request has: none of them was answered.
    assert!(requests.join_all().await.iter().all(Result::is_err));
    store.resume();
}
