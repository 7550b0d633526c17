//! An HTTP client that keeps its connections, and one that sends bytes as they are.

use std::{io, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{client::legacy::connect::HttpConnector, rt::TokioExecutor};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

/// What came back.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
}

impl Answer {
    /// A header's text; empty if there is none.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.find_header(name).unwrap_or("")
    }

    /// A header's text, if there is one.
    pub(crate) fn find_header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    /// `error.code` of an error body.
    pub(crate) fn code(&self) -> String {
        self.json()["error"]["code"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// A client of one address.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    address: String,
    http: hyper_util::client::legacy::Client<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(crate) fn new(address: impl ToString) -> Self {
        let http = hyper_util::client::legacy::Client::builder(TokioExecutor::new()).build_http();
        Self {
            address: address.to_string(),
            http,
        }
    }

    pub(crate) async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Result<Answer, String> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let response = self
            .http
            .request(request)
            .await
            .map_err(|error| format!("{error:?}"))?;
        let (parts, body) = response.into_parts();
        let body = body
            .collect()
            .await
            .map_err(|error| error.to_string())?
            .to_bytes();
        Ok(Answer {
            status: parts.status,
            headers: parts.headers,
            body,
        })
    }

    /// As [`send`](Self::send), where an answer is certain.
    pub(crate) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Answer {
        self.send(method, path, headers, body).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.request(Method::GET, path, &[], "").await
    }

    pub(crate) async fn get_with(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.request(Method::GET, path, headers, "").await
    }

    pub(crate) async fn put(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.request(Method::PUT, path, &[], body).await
    }

    pub(crate) async fn post(&self, path: &str, body: impl Into<Bytes>) -> Answer {
        self.request(Method::POST, path, &[], body).await
    }

    pub(crate) async fn delete(&self, path: &str) -> Answer {
        self.request(Method::DELETE, path, &[], "").await
    }

    /// `/api/v1/policies/{tenant}/{policy}` of `"tenant/policy"`.
    pub(crate) async fn policy(&self, name: &str) -> Answer {
        self.get(&format!("/api/v1/policies/{name}")).await
    }

    pub(crate) async fn put_policy(&self, name: &str, body: impl Into<Bytes>) -> Answer {
        self.put(&format!("/api/v1/policies/{name}"), body).await
    }

    pub(crate) async fn delete_policy(&self, name: &str) -> Answer {
        self.delete(&format!("/api/v1/policies/{name}")).await
    }
}

/// How long a test waits for an answer that is certain to come.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends the bytes and reads until the server closes. What came, and how it ended: a reset is an error.
pub(crate) async fn until_closed(
    address: impl ToString,
    bytes: impl AsRef<[u8]>,
) -> (String, io::Result<usize>) {
    let mut stream = TcpStream::connect(address.to_string()).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    let mut answer = Vec::new();
    let end = tokio::time::timeout(TIMEOUT, stream.read_to_end(&mut answer))
        .await
        .unwrap();
    (String::from_utf8(answer).unwrap(), end)
}

/// Sends the bytes and returns all answers to them.
pub(crate) async fn raw(address: impl ToString, bytes: impl AsRef<[u8]>) -> String {
    converse(address, bytes).await.0
}

/// Sends the bytes and returns all answers to them, and whether the server closed the connection by itself.
///
/// A connection that stays open is asked one thing more: since answers come in the order of the requests, none to the
/// bytes is missing when the answer to that is there.
pub(crate) async fn converse(address: impl ToString, bytes: impl AsRef<[u8]>) -> (String, bool) {
    let mut stream = TcpStream::connect(address.to_string()).await.unwrap();
    stream.write_all(bytes.as_ref()).await.unwrap();
    let mut answers = Vec::new();
    loop {
        let timeout = match last_answer(&answers) {
            Last::StaysOpen => Duration::from_millis(100),
            Last::Incomplete | Last::Closes => TIMEOUT,
        };
        match tokio::time::timeout(timeout, read(&mut stream, &mut answers)).await {
            Ok(true) => {}
            Ok(false) => return (text(&answers), true),
            Err(_silence) if timeout == TIMEOUT => return (text(&answers), false),
            Err(_silence) => break,
        }
    }
    let before = answers.len();
    let probe = "GET /live HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n";
    // A server that has just closed does not take it.
    let _closed = stream.write_all(probe.as_bytes()).await;
    while tokio::time::timeout(TIMEOUT, read(&mut stream, &mut answers))
        .await
        .unwrap()
    {}
    let answers = text(&answers);
    match answers.get(before..).and_then(|late| late.rfind("HTTP/1.")) {
        Some(probed) => (answers[..before + probed].to_owned(), false),
        None => (answers, true),
    }
}

/// Whether something came. A reset is an end as well: bytes of ours were still unread.
async fn read(stream: &mut TcpStream, into: &mut Vec<u8>) -> bool {
    matches!(stream.read_buf(into).await, Ok(1..))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The last of several answers.
enum Last {
    Incomplete,
    /// It is whole, and further ones can follow.
    StaysOpen,
    /// It is whole and says that the connection closes.
    Closes,
}

fn last_answer(mut bytes: &[u8]) -> Last {
    let mut last = Last::Incomplete;
    while !bytes.is_empty() {
        let Some(end) = bytes.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Last::Incomplete;
        };
        let head = text(&bytes[..end]).to_ascii_lowercase();
        let header = |name| head.lines().find_map(|line| line.strip_prefix(name));
        let length = header("content-length:").map_or(0, |length| length.trim().parse().unwrap());
        last = match bytes.get(end + 4..end + 4 + length) {
            None => return Last::Incomplete,
            Some(_) if head.starts_with("http/1.0") || header("connection: close").is_some() => Last::Closes,
            Some(_) => Last::StaysOpen,
        };
        bytes = &bytes[end + 4 + length..];
    }
    last
}
