//! Clients: they write, read, give up and follow, and note what they were told.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use beamline_sidecar::heir::wire;
use http::Method;
use tokio::{io::AsyncWriteExt, net::TcpStream, task::JoinHandle, time::timeout};

use super::{
    pause,
    record::{Read, Record, Written},
};
use crate::support::{Answer, Client};

/// How many policies there are: few, so that many writes meet.
const KEYS: usize = 6;
/// A client that has heard nothing for so long asks again.
const PATIENCE: Duration = Duration::from_secs(20);

/// A change as a follower heard of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Heard {
    pub(super) revision: u64,
    pub(super) key: String,
    /// The number of the write; `None` for a deletion.
    pub(super) number: Option<u64>,
}

/// What there is in the end.
#[derive(Debug)]
pub(super) struct State {
    pub(super) revision: u64,
    /// The number in each policy that there is.
    pub(super) policies: BTreeMap<String, u64>,
}

fn some_key() -> String {
    format!("k{}", fastrand::usize(..KEYS))
}

fn path(key: &str) -> String {
    format!("/api/v1/policies/acme/{key}")
}

fn number_in(body: &[u8]) -> u64 {
    let document: serde_json::Value = serde_json::from_slice(body).unwrap();
    document["n"].as_u64().unwrap()
}

fn document(number: u64) -> String {
    format!(
        "{{\"n\":{number},\"a\":\"{}\"}}",
        "x".repeat(fastrand::usize(..2_000))
    )
}

fn revision_of(answer: &Answer) -> u64 {
    answer
        .find_header(wire::REVISION_HEADER)
        .unwrap()
        .parse()
        .unwrap()
}

async fn send(client: &Client, method: Method, path: &str, body: String) -> Option<Answer> {
    let sent = timeout(PATIENCE, client.send(method, path, &[], body)).await;
    sent.ok().and_then(Result::ok)
}

/// Begins to write, to read and to give up, until `stop`.
pub(super) fn begin(
    addresses: &[SocketAddr],
    record: &Arc<Record>,
    stop: &Arc<AtomicBool>,
) -> Vec<JoinHandle<()>> {
    let mut working = Vec::new();
    for address in addresses.iter().copied() {
        for n in 0..8 {
            let (record, stop, client) = (record.clone(), stop.clone(), Client::new(address));
            working.push(tokio::spawn(async move {
                while !stop.load(SeqCst) {
                    match n {
                        0..3 => {
                            let _noted = write(&client, &record).await;
                        }
                        3..6 => read(&client, &record).await,
                        _ => give_up(address, &record).await,
                    }
                    pause(0..10).await;
                }
            }));
        }
    }
    working
}

/// Whether a write is acknowledged there.
pub(super) async fn writes(address: SocketAddr, record: &Record) -> bool {
    write(&Client::new(address), record).await
}

/// Writes there until a write is refused with this status, as it must be soon; how many were not acknowledged.
pub(super) async fn until_refused(address: SocketAddr, record: &Record, status: u16) -> usize {
    let (client, began, mut failed) = (Client::new(address), Instant::now(), 0);
    loop {
        // Larger than the room that the database has left in its files.
        let (number, key) = (record.number(), some_key());
        let body = format!("{{\"n\":{number},\"a\":\"{}\"}}", "x".repeat(200_000));
        let asked = Instant::now();
        let sent = send(&client, Method::PUT, &path(&key), body).await;
        let answered = sent.as_ref().map(|answer| answer.status.as_u16());
        let acknowledged = sent
            .filter(|answer| answer.status.is_success())
            .map(|answer| (Instant::now(), revision_of(&answer)));
        failed += usize::from(acknowledged.is_none());
        record.wrote(Written {
            number,
            key,
            is_delete: false,
            asked,
            acknowledged,
            given_up: false,
        });
        if answered == Some(status) {
            return failed;
        }
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "no {status}, but {answered:?}"
        );
        pause(0..20).await;
    }
}

/// One write; whether it was acknowledged.
async fn write(client: &Client, record: &Record) -> bool {
    let (number, key, is_delete) = (record.number(), some_key(), fastrand::u8(..8) == 0);
    let asked = Instant::now();
    let sent = if is_delete {
        send(client, Method::DELETE, &path(&key), String::new()).await
    } else {
        send(client, Method::PUT, &path(&key), document(number)).await
    };
    let acknowledged = match &sent {
        Some(answer) if answer.status.is_success() => Some((Instant::now(), revision_of(answer))),
        // There was nothing to delete, and nothing was written.
        Some(answer) if answer.status == 404 => return true,
        Some(answer) if answer.status.is_server_error() => None,
        Some(answer) => panic!("{answer:?}"),
        None => None,
    };
    record.wrote(Written {
        number,
        key,
        is_delete,
        asked,
        acknowledged,
        given_up: false,
    });
    if acknowledged.is_none() {
        pause(0..50).await;
    }
    acknowledged.is_some()
}

async fn read(client: &Client, record: &Record) {
    let (key, asked) = (some_key(), Instant::now());
    let Some(answer) = send(client, Method::GET, &path(&key), String::new()).await else {
        return;
    };
    let (revision, number) = match answer.status.as_u16() {
        200 => (Some(revision_of(&answer)), Some(number_in(&answer.body))),
        404 => (None, None),
        500.. => return,
        _ => panic!("{answer:?}"),
    };
    record.read(Read {
        key,
        asked,
        answered: Instant::now(),
        revision,
        number,
    });
}

/// Asks for something, and leaves before or after the answer has been made.
async fn give_up(address: SocketAddr, record: &Record) {
    let (number, key, asked) = (record.number(), some_key(), Instant::now());
    let is_write = fastrand::bool();
    let body = document(number);
    let request = if is_write {
        format!(
            "PUT {} HTTP/1.1\r\nhost: a\r\ncontent-length: {}\r\n\r\n{body}",
            path(&key),
            body.len()
        )
    } else {
        let read = [
            "/api/v1/policies/acme",
            "/api/v1/snapshot",
            "/api/v1/changes?since=0",
        ];
        format!(
            "GET {} HTTP/1.1\r\nhost: a\r\n\r\n",
            fastrand::choice(read).unwrap()
        )
    };
    let Ok(mut stream) = TcpStream::connect(address).await else {
        return;
    };
    let _cut = stream.write_all(request.as_bytes()).await;
    pause(0..60).await;
    drop(stream);
    if is_write {
        record.wrote(Written {
            number,
            key,
            is_delete: false,
            asked,
            acknowledged: None,
            given_up: true,
        });
    }
}

/// Follows the changes from the first one on, at two of the addresses, until `stop` and until nothing more comes.
pub(super) fn follow(addresses: &[SocketAddr], stop: &Arc<AtomicBool>) -> Vec<JoinHandle<Vec<Heard>>> {
    let both = [addresses[0], addresses[addresses.len() - 1]];
    both.map(|address| {
        let stop = stop.clone();
        tokio::spawn(follower(Client::new(address), stop))
    })
    .into()
}

async fn follower(client: Client, stop: Arc<AtomicBool>) -> Vec<Heard> {
    let mut heard: Vec<Heard> = Vec::new();
    let (mut since, mut chain) = (0, String::new());
    loop {
        let is_last = stop.load(SeqCst);
        let mut path = format!("/api/v1/changes?since={since}&wait_ms=1000");
        if !chain.is_empty() {
            path.push_str(&format!("&chain={chain}"));
        }
        let Some(answer) = send(&client, Method::GET, &path, String::new()).await else {
            pause(0..50).await;
            continue;
        };
        if answer.status.is_server_error() {
            pause(0..50).await;
            continue;
        }
        assert_eq!(answer.status, 200, "{}", answer.text());
        let changes: wire::Changes<'_> = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(changes.from, since);
        if !chain.is_empty() {
            assert_eq!(
                changes.from_chain.as_deref(),
                Some(chain.as_str()),
                "another history"
            );
        }
        for change in &changes.changes {
            heard.push(Heard {
                revision: change.revision.unwrap(),
                key: change.policy_id.as_deref().unwrap().to_owned(),
                number: change.policy.map(|policy| number_in(policy.get().as_bytes())),
            });
        }
        let is_empty = changes.changes.is_empty();
        (since, chain) = (changes.to, changes.to_chain.unwrap().into_owned());
        // Asked after the last write was over.
        if is_last && is_empty {
            return heard;
        }
    }
}

/// The state in the end.
pub(super) async fn state(address: SocketAddr) -> State {
    let client = Client::new(address);
    let mut policies = BTreeMap::new();
    for key in (0..KEYS).map(|n| format!("k{n}")) {
        let got = client.get(&path(&key)).await;
        if got.status == 200 {
            policies.insert(key, number_in(&got.body));
        } else {
            assert_eq!(got.status, 404);
        }
    }
    State {
        revision: revision_of(&client.get("/api/v1/snapshot").await),
        policies,
    }
}
