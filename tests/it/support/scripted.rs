//! A HEIR that sends exactly the bytes that a test gives it, over real sockets.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// What to do with one request.
#[derive(Debug, Clone)]
pub(crate) enum Say {
    /// These bytes, head and all; then close.
    Bytes(Vec<u8>),
    /// A JSON body with this status and more header lines, framed as it should be; the connection is kept.
    Json(u16, &'static str, String),
    /// Nothing, for ever.
    Silence,
    /// These bytes, and then these again and again until the client goes.
    Endless(Vec<u8>, Vec<u8>),
}

type Script = HashMap<String, Say>;

/// Answers by the longest key that a request's `METHOD path` begins with; 404 where none fits.
pub(crate) struct Scripted {
    pub(crate) address: SocketAddr,
    script: Arc<Mutex<Script>>,
    requests: Arc<Mutex<Vec<String>>>,
    running: JoinHandle<()>,
}

impl Scripted {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(Script::new()));
        let requests = Arc::new(Mutex::new(Vec::new()));
        let (says, heard) = (script.clone(), requests.clone());
        let running = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(converse(stream, says.clone(), heard.clone()));
            }
        });
        Self {
            address,
            script,
            requests,
            running,
        }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(crate) fn on(&self, request: &str, say: Say) {
        self.script.lock().unwrap().insert(request.to_owned(), say);
    }

    /// The heads of all requests so far.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.requests.lock().unwrap().clone()
    }

    /// How many requests began like this.
    pub(crate) fn count(&self, request: &str) -> usize {
        self.requests
            .lock()
            .unwrap()
            .iter()
            .filter(|head| head.starts_with(request))
            .count()
    }
}

impl Drop for Scripted {
    fn drop(&mut self) {
        self.running.abort();
    }
}

async fn converse(mut stream: TcpStream, script: Arc<Mutex<Script>>, requests: Arc<Mutex<Vec<String>>>) {
    let mut buffer = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                break end + 4;
            }
            let mut piece = [0; 4096];
            match stream.read(&mut piece).await {
                Ok(read @ 1..) => buffer.extend_from_slice(&piece[..read]),
                _ => return,
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
        buffer.drain(..end);
        let length = head.lines().find_map(|line| {
            line.to_ascii_lowercase()
                .strip_prefix("content-length:")?
                .trim()
                .parse()
                .ok()
        });
        let mut left: usize = length.unwrap_or(0);
        while left > 0 {
            if buffer.is_empty() {
                let mut piece = [0; 4096];
                match stream.read(&mut piece).await {
                    Ok(read @ 1..) => buffer.extend_from_slice(&piece[..read]),
                    _ => return,
                }
            }
            let taken = left.min(buffer.len());
            buffer.drain(..taken);
            left -= taken;
        }
        requests.lock().unwrap().push(head.clone());
        let say = {
            let script = script.lock().unwrap();
            let best = script
                .iter()
                .filter(|(request, _)| head.starts_with(request.as_str()));
            best.max_by_key(|(request, _)| request.len())
                .map(|(_, say)| say.clone())
        };
        let written = match say.unwrap_or_else(|| Say::Json(404, "", "{}".into())) {
            Say::Bytes(bytes) => {
                let _gone = stream.write_all(&bytes).await;
                return;
            }
            Say::Json(status, more, body) => {
                let length = body.len();
                let head = format!(
                    "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n"
                );
                stream.write_all(format!("{head}{body}").as_bytes()).await
            }
            Say::Silence => {
                tokio::time::sleep(Duration::from_secs(600)).await;
                return;
            }
            Say::Endless(first, again) => {
                let _gone = stream.write_all(&first).await;
                while stream.write_all(&again).await.is_ok() {}
                return;
            }
        };
        if written.is_err() {
            return;
        }
    }
}
