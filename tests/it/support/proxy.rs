//! A proxy between sidecar and store, which can cut connections and answer errors.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinHandle,
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Mode {
    Pass,
    Errors,
}

/// Stands between sidecar and store, at one address however often the store moves, and can answer 500 itself.
pub(crate) struct Proxy {
    pub(crate) address: SocketAddr,
    target: Arc<Mutex<SocketAddr>>,
    mode: watch::Sender<Mode>,
    running: JoinHandle<()>,
}

impl Proxy {
    pub(crate) async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target = Arc::new(Mutex::new(target));
        let mode = watch::Sender::new(Mode::Pass);
        let (modes, targets) = (mode.subscribe(), target.clone());
        let running = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let to = *targets.lock().unwrap();
                tokio::spawn(relay(client, to, modes.clone()));
            }
        });
        Self {
            address,
            target,
            mode,
            running,
        }
    }

    /// The store is there from now on.
    pub(crate) fn lead_to(&self, target: SocketAddr) {
        *self.target.lock().unwrap() = target;
    }

    /// Cuts all connections, and answers every further request with 500.
    pub(crate) fn answer_errors(&self) {
        self.mode.send_replace(Mode::Errors);
    }

    /// Cuts all connections, and lets further ones through. How many there were.
    pub(crate) fn pass(&self) -> usize {
        // Each connection listens, and so does what accepts them.
        let connections = self.mode.receiver_count() - 1;
        self.mode.send_replace(Mode::Pass);
        connections
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn relay(mut client: TcpStream, target: SocketAddr, mut modes: watch::Receiver<Mode>) {
    let mode = *modes.borrow_and_update();
    if mode == Mode::Errors {
        let _gone = refuse(client).await;
        return;
    }
    let Ok(mut store) = TcpStream::connect(target).await else {
        return;
    };
    tokio::select! {
        _ = tokio::io::copy_bidirectional(&mut client, &mut store) => {}
        _ = modes.changed() => {}
    }
}

/// Reads one request, so that the client comes to read the answer, and answers it.
async fn refuse(mut client: TcpStream) -> std::io::Result<()> {
    let mut read = Vec::new();
    let end = loop {
        if let Some(end) = read.windows(4).position(|window| window == b"\r\n\r\n") {
            break end + 4;
        }
        if client.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    };
    let head = String::from_utf8_lossy(&read[..end]).to_ascii_lowercase();
    let length: usize = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok())
        .unwrap_or(0);
    while read.len() < end + length {
        if client.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
    }
    client
        .write_all(b"HTTP/1.1 500 Internal Server Error\r\ncontent-length: 0\r\nconnection: close\r\n\r\n")
        .await
}
