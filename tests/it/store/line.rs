//! A line to the PostgreSQL server that is longer than a socket of this machine: it takes its time, and can be cut.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpListener, TcpStream, UnixStream},
    sync::{mpsc, watch},
    task::JoinHandle,
    time::{Instant, sleep_until},
};

use super::scratch::Scratch;

/// How long everything takes in each direction.
const DELAY: Duration = Duration::from_millis(10);

/// A proxy in front of the server: 20 ms for each round trip.
pub(crate) struct Line {
    /// The database of the scratch, over this line.
    pub(crate) database: String,
    connections: Arc<AtomicUsize>,
    cuts: watch::Sender<u64>,
    running: JoinHandle<()>,
}

#[derive(Clone)]
enum Server {
    Unix(PathBuf),
    Tcp(String),
}

impl Line {
    pub(crate) async fn to(scratch: &Scratch) -> Self {
        let (server, user) = server_of(&scratch.database);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let database = format!(
            "postgres://{user}@127.0.0.1:{port}/{}?sslmode=disable",
            scratch.name()
        );
        let (connections, cuts) = (Arc::new(AtomicUsize::new(0)), watch::Sender::new(0));
        let (counted, cut) = (connections.clone(), cuts.subscribe());
        let running = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                counted.fetch_add(1, SeqCst);
                client.set_nodelay(true).unwrap();
                tokio::spawn(relay(client, server.clone(), cut.clone()));
            }
        });
        Self {
            database,
            connections,
            cuts,
            running,
        }
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(SeqCst)
    }

    /// Cuts all connections; further ones go through. How many there were.
    pub(crate) fn cut(&self) -> usize {
        // Each connection listens, and so does what accepts them.
        let connections = self.cuts.receiver_count() - 1;
        self.cuts.send_modify(|cuts| *cuts += 1);
        connections
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.running.abort();
    }
}

/// Where the server of a database's URL is, and who its user is.
fn server_of(url: &str) -> (Server, String) {
    let (address, parameters) = url.split_once('?').unwrap_or((url, ""));
    let (_, address) = address.split_once("://").unwrap();
    let (authority, _) = address.split_once('/').unwrap();
    let (user, host) = authority.rsplit_once('@').unwrap_or(("postgres", authority));
    let socket = parameters
        .split('&')
        .find_map(|parameter| parameter.strip_prefix("host="))
        .filter(|host| host.starts_with('/'));
    let server = match socket {
        Some(folder) => Server::Unix(format!("{folder}/.s.PGSQL.5432").into()),
        None if host.contains(':') => Server::Tcp(host.to_owned()),
        None => Server::Tcp(format!("{host}:5432")),
    };
    (server, user.to_owned())
}

async fn relay(client: TcpStream, server: Server, mut cut: watch::Receiver<u64>) {
    cut.mark_unchanged();
    let both = async {
        match server {
            Server::Unix(path) => {
                let Ok(server) = UnixStream::connect(path).await else {
                    return;
                };
                pass(client, server).await;
            }
            Server::Tcp(address) => {
                let Ok(server) = TcpStream::connect(address).await else {
                    return;
                };
                pass(client, server).await;
            }
        }
    };
    tokio::select! {
        () = both => {}
        _ = cut.changed() => {}
    }
}

/// Until either side ends.
async fn pass(client: impl AsyncRead + AsyncWrite + Unpin, server: impl AsyncRead + AsyncWrite + Unpin) {
    let (from_client, to_client) = tokio::io::split(client);
    let (from_server, to_server) = tokio::io::split(server);
    tokio::select! {
        () = late(from_client, to_server) => {}
        () = late(from_server, to_client) => {}
    }
}

/// Passes everything on, later.
async fn late(mut from: impl AsyncRead + Unpin, mut to: impl AsyncWrite + Unpin) {
    let (sender, mut receiver) = mpsc::unbounded_channel::<(Instant, Vec<u8>)>();
    let read = async move {
        let mut buffer = vec![0; 1 << 16];
        while let Ok(length @ 1..) = from.read(&mut buffer).await {
            if sender
                .send((Instant::now() + DELAY, buffer[..length].to_vec()))
                .is_err()
            {
                return;
            }
        }
    };
    let write = async {
        while let Some((due, bytes)) = receiver.recv().await {
            sleep_until(due).await;
            if to.write_all(&bytes).await.is_err() {
                return;
            }
        }
    };
    tokio::join!(read, write);
}
