//! The embedded HEIR over real sockets: on SQLite always, and on Postgres as well when `BEAMLINE_TEST_POSTGRES`
//! holds the URL of a server on which databases may be created (`tests/postgres.sh` starts one).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use beamline_sidecar::{
    heir::wire::{self, Line},
    listener::Address,
    policy::ETag,
    store::{Level, Store, StoreConfig},
};
use bytes::Bytes;
use http::{HeaderMap, Method, Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use sqlx::{AnyConnection, AssertSqlSafe, Connection};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

// === where the data is ===

/// A database of a test's own.
struct Scratch {
    database: String,
    folder: TempDir,
    /// The URL of the server, for a database that must be dropped.
    server: Option<String>,
}

#[expect(
    clippy::disallowed_methods,
    reason = "whether there is a Postgres is a matter of the machine that runs the tests"
)]
fn postgres() -> Option<String> {
    std::env::var("BEAMLINE_TEST_POSTGRES").ok()
}

async fn on_server(server: &str, sql: String) {
    sqlx::any::install_default_drivers();
    let mut connection = AnyConnection::connect(server).await.unwrap();
    sqlx::raw_sql(AssertSqlSafe(sql))
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

fn fresh_name() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    format!("beamline_test_{}_{number}", std::process::id())
}

/// The server's URL with another database.
fn with_database(server: &str, name: &str) -> String {
    let (address, parameters) = server.split_once('?').unwrap_or((server, ""));
    let (address, _) = address.rsplit_once('/').unwrap();
    format!("{address}/{name}?{parameters}")
}

impl Scratch {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let database = folder.path().join("a store.db").to_str().unwrap().to_owned();
        Self {
            database,
            folder,
            server: None,
        }
    }

    async fn postgres(server: String, template: &str) -> Self {
        let name = fresh_name();
        on_server(
            &server,
            format!("CREATE DATABASE {name} TEMPLATE {template} ENCODING 'UTF8'"),
        )
        .await;
        Self {
            database: with_database(&server, &name),
            folder: tempfile::tempdir().unwrap(),
            server: Some(server),
        }
    }

    fn name(&self) -> &str {
        let (address, _) = self.database.split_once('?').unwrap_or((&self.database, ""));
        address.rsplit_once('/').unwrap().1
    }

    /// A backup, taken while no store runs.
    async fn copy(&self) -> Self {
        match &self.server {
            Some(server) => Self::postgres(server.clone(), self.name()).await,
            None => {
                let copy = Self::sqlite();
                std::fs::copy(&self.database, &copy.database).unwrap();
                copy
            }
        }
    }

    async fn remove(self) {
        if let Some(server) = &self.server {
            let sql = format!("DROP DATABASE {} WITH (FORCE)", self.name());
            on_server(server, sql).await;
        }
    }

    async fn start(&self) -> Running {
        self.start_with(|_| {}).await
    }

    async fn start_with(&self, adjust: impl FnOnce(&mut StoreConfig)) -> Running {
        let mut config = StoreConfig {
            database: self.database.clone(),
            ..config()
        };
        adjust(&mut config);
        Running::start(config).await
    }
}

/// Runs the test on SQLite, and on Postgres if there is one.
async fn everywhere(test: impl AsyncFn(&Scratch)) {
    let scratch = Scratch::sqlite();
    test(&scratch).await;
    if let Some(server) = postgres() {
        let scratch = Scratch::postgres(server, "template0").await;
        test(&scratch).await;
        scratch.remove().await;
    }
}

// === a store that runs, and its client ===

fn config() -> StoreConfig {
    StoreConfig {
        listen: "127.0.0.1:0".parse().unwrap(),
        database: ":memory:".to_owned(),
        ..StoreConfig::default()
    }
}

struct Running {
    client: TestClient,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Running {
    async fn start(config: StoreConfig) -> Self {
        let store = Store::build(config).await.unwrap();
        let Address::Tcp(address) = *store.address() else {
            panic!("not TCP")
        };
        let stop = CancellationToken::new();
        let task = tokio::spawn(store.run(stop.clone()));
        Self {
            client: TestClient::new(address),
            stop,
            task,
        }
    }

    async fn stop(self) {
        self.stop.cancel();
        tokio::time::timeout(Duration::from_secs(5), self.task)
            .await
            .unwrap()
            .unwrap();
    }
}

impl std::ops::Deref for Running {
    type Target = TestClient;

    fn deref(&self) -> &TestClient {
        &self.client
    }
}

#[derive(Clone)]
struct TestClient {
    http: Client<HttpConnector, Full<Bytes>>,
    address: SocketAddr,
}

#[derive(Debug)]
struct Reply {
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

impl Reply {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    fn etag(&self) -> &str {
        self.header("etag").unwrap()
    }

    fn revision(&self) -> u64 {
        self.header(wire::REVISION_HEADER).unwrap().parse().unwrap()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// The status and the error's code.
    fn error(&self) -> (u16, String) {
        let code = self.json()["error"]["code"].as_str().unwrap().to_owned();
        (self.status.as_u16(), code)
    }

    fn reason(&self) -> String {
        assert_eq!(self.error(), (410, "snapshot_required".to_owned()));
        self.json()["error"]["details"]["reason"]
            .as_str()
            .unwrap()
            .to_owned()
    }
}

impl TestClient {
    fn new(address: SocketAddr) -> Self {
        Self {
            http: Client::builder(TokioExecutor::new()).build_http(),
            address,
        }
    }

    async fn try_send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Option<Reply> {
        let mut request = Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(body.into())).unwrap();
        let (head, body) = self.http.request(request).await.ok()?.into_parts();
        Some(Reply {
            status: head.status,
            headers: head.headers,
            body: body.collect().await.ok()?.to_bytes(),
        })
    }

    async fn send(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Bytes>,
    ) -> Reply {
        self.try_send(method, path, headers, body).await.unwrap()
    }

    async fn get(&self, path: &str) -> Reply {
        self.send(Method::GET, path, &[], "").await
    }

    async fn put(&self, path: &str, body: impl Into<Bytes>) -> Reply {
        self.send(Method::PUT, path, &[], body).await
    }

    async fn delete(&self, path: &str) -> Reply {
        self.send(Method::DELETE, path, &[], "").await
    }

    /// Where the store's history is now.
    async fn position(&self) -> (u64, String) {
        let snapshot = self.get(SNAPSHOT).await;
        let first: Line<'_> =
            serde_json::from_slice(snapshot.body.split(|b| *b == b'\n').next().unwrap()).unwrap();
        (first.revision.unwrap(), first.chain.unwrap().into_owned())
    }
}

const SNAPSHOT: &str = "/api/v1/snapshot";
const P: &str = "/api/v1/policies/acme/chat";

fn policy(id: impl std::fmt::Display) -> String {
    format!("/api/v1/policies/acme/{id}")
}

/// A snapshot's documents by tenant and policy or by id, checked to be whole.
fn read_snapshot(body: &[u8]) -> (u64, BTreeMap<String, (u64, Bytes)>) {
    let text = std::str::from_utf8(body).unwrap();
    let mut lines = text.strip_suffix('\n').unwrap().split('\n').map(|line| {
        let line: Line<'_> = serde_json::from_str(line).unwrap();
        line
    });
    let first = lines.next().unwrap();
    assert_eq!((&*first.kind, first.format), ("snapshot", Some(1)));
    let mut found = BTreeMap::new();
    for line in lines.by_ref() {
        let (name, document) = match &*line.kind {
            "policy" => {
                let bytes = wire::exact_bytes(line.policy.unwrap(), line.policy_text.as_deref());
                assert_eq!(line.etag.unwrap(), ETag::of_bytes(&bytes).as_str());
                let name = format!("{}/{}", line.tenant_id.unwrap(), line.policy_id.unwrap());
                (name, bytes)
            }
            "extension" => {
                let record = line.extension.unwrap().get();
                (
                    line.id.unwrap().into_owned(),
                    Bytes::copy_from_slice(record.as_bytes()),
                )
            }
            _ => {
                assert_eq!(line.count, Some(found.len() as u64));
                break;
            }
        };
        found.insert(name, (line.revision.unwrap(), document));
    }
    assert!(lines.next().is_none());
    (first.revision.unwrap(), found)
}

// === tests ===

#[tokio::test]
async fn documents_are_kept_byte_for_byte_and_outlive_the_process() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let document = "{ \"b\" : 50.0,\n\t\"é\":[\"\\u00e9😀\"]}\r\n";
        let put = store.put(P, document).await;
        assert_eq!(put.status, 201);
        let etag = ETag::of_bytes(document.as_bytes()).to_string();
        assert_eq!(put.json(), json!({"ok": true, "revision": 1, "etag": etag}));
        assert_eq!((put.etag(), put.revision()), (etag.as_str(), 1));
        store.stop().await;

        let store = scratch.start().await;
        let got = store.get(P).await;
        assert_eq!(got.body, document.as_bytes());
        assert_eq!(
            (got.status, got.etag(), got.revision()),
            (StatusCode::OK, etag.as_str(), 1)
        );
        assert_eq!(got.header("content-type"), Some("application/json"));
        let head = store.send(Method::HEAD, P, &[], "").await;
        assert_eq!((head.status, head.body.len()), (StatusCode::OK, 0));
        assert_eq!(
            head.header("content-length"),
            Some(document.len().to_string().as_str())
        );
        assert_eq!(head.etag(), etag);

        let replaced = store.put(P, "{}").await;
        assert_eq!((replaced.status, replaced.revision()), (StatusCode::OK, 2));
        let again = store.put(P, "{}").await;
        assert_eq!((again.status, again.revision()), (StatusCode::OK, 2));
        assert_eq!(again.etag(), replaced.etag());
        assert_eq!(store.get(SNAPSHOT).await.revision(), 2);

        let deleted = store.delete(P).await;
        assert_eq!((deleted.status, deleted.revision()), (StatusCode::NO_CONTENT, 3));
        assert_eq!(store.get(P).await.error(), (404, "not_found".into()));
        assert_eq!(store.delete(P).await.error(), (404, "not_found".into()));
        // Another tenant's policy of the same name is another policy.
        assert_eq!(store.put("/api/v1/policies/other/chat", "{}").await.revision(), 4);
        assert_eq!(store.get(P).await.status, 404);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_store_in_memory_works_and_forgets() {
    let store = Running::start(config()).await;
    let clients = (0..20).map(|n| {
        let client = store.client.clone();
        tokio::spawn(async move {
            assert_eq!(client.put(&policy(n), "{}").await.status, 201);
            assert_eq!(client.get(&policy(n)).await.status, 200);
        })
    });
    for client in clients.collect::<Vec<_>>() {
        client.await.unwrap();
    }
    assert_eq!(store.get(SNAPSHOT).await.revision(), 20);
    store.stop().await;
    let store = Running::start(config()).await;
    assert_eq!(store.get(SNAPSHOT).await.revision(), 0);
    store.stop().await;
}

#[tokio::test]
async fn conditional_requests_are_answered_as_the_standard_says() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let absent = store.send(Method::PUT, P, &[("if-match", "*")], "{}").await;
        assert_eq!(absent.error(), (412, "precondition_failed".into()));
        assert_eq!(absent.header("etag"), None);
        let made = store.send(Method::PUT, P, &[("if-none-match", "*")], "{}").await;
        assert_eq!(made.status, 201);
        let tag = made.etag().to_owned();

        for headers in [[("if-none-match", "*")], [("if-match", "\"other\"")]] {
            for method in [Method::PUT, Method::DELETE] {
                let refused = store.send(method, P, &headers, "{\"a\":1}").await;
                assert_eq!(refused.error(), (412, "precondition_failed".into()));
                assert_eq!(refused.etag(), tag);
            }
        }
        // What was refused took no revision.
        let list = format!("\"x\", {tag}");
        let replaced = store
            .send(Method::PUT, P, &[("if-match", &list)], "{\"a\":1}")
            .await;
        assert_eq!((replaced.status, replaced.revision()), (StatusCode::OK, 2));

        let new = replaced.etag().to_owned();
        let weak = format!("W/{new}");
        for known in [new.as_str(), weak.as_str(), "*"] {
            let same = store.send(Method::GET, P, &[("if-none-match", known)], "").await;
            assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
            assert_eq!((same.etag(), same.revision()), (new.as_str(), 2));
        }
        let changed = store.send(Method::GET, P, &[("if-none-match", &tag)], "").await;
        assert_eq!(changed.body, "{\"a\":1}");
        let deleted = store.send(Method::DELETE, P, &[("if-match", &new)], "").await;
        assert_eq!((deleted.status, deleted.revision()), (StatusCode::NO_CONTENT, 3));
        let gone = store.send(Method::DELETE, P, &[("if-match", &new)], "").await;
        assert_eq!(gone.status, 412);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn an_idempotency_key_writes_once() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let key = [("idempotency-key", "write-1")];
        let first = store.send(Method::PUT, P, &key, "{}").await;
        store.put(P, "{\"later\":1}").await;
        let again = store.send(Method::PUT, P, &key, "{}").await;
        for answer in [&first, &again] {
            assert_eq!((answer.status, answer.revision()), (StatusCode::CREATED, 1));
        }
        assert_eq!(first.etag(), again.etag());
        assert_eq!(first.body, again.body);
        assert_eq!(store.get(P).await.body, "{\"later\":1}");

        let key = [("idempotency-key", "write-2")];
        for _ in 0..2 {
            let deleted = store.send(Method::DELETE, P, &key, "").await;
            assert_eq!((deleted.status, deleted.revision()), (StatusCode::NO_CONTENT, 3));
        }
        // A condition that held the first time does not stand in the way of the repetition.
        let headers = [("idempotency-key", "write-3"), ("if-none-match", "*")];
        for _ in 0..2 {
            let made = store.send(Method::PUT, P, &headers, "{}").await;
            assert_eq!((made.status, made.revision()), (StatusCode::CREATED, 4));
        }
        // A write that changes nothing is remembered too.
        let key = [("idempotency-key", "write-4")];
        assert_eq!(store.send(Method::PUT, P, &key, "{}").await.revision(), 4);
        store.put(P, "{\"b\":1}").await;
        assert_eq!(store.send(Method::PUT, P, &key, "{}").await.revision(), 4);
        assert_eq!(store.get(P).await.body, "{\"b\":1}");

        let other = store.send(Method::PUT, &policy("x"), &key, "{}").await;
        assert_eq!(other.error(), (409, "conflict".into()));
        assert_eq!(store.get(&policy("x")).await.status, 404);
        for bad in ["", &"k".repeat(129), "a b"] {
            let refused = store
                .send(Method::PUT, P, &[("idempotency-key", bad)], "{}")
                .await;
            assert_eq!(refused.error(), (400, "invalid_request".into()), "{bad:?}");
        }
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_list_names_its_elements_and_sorts_them_by_bytes() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        for (id, document) in [
            ("b", "{\"policy_id\":\"other\",\"n\":1}"),
            ("a.1", "{ }"),
            ("a_1", "{ \"policy_id\" : \"a_1\" }"),
            ("B", "{\"x\":1}"),
            ("a", "{\n}"),
        ] {
            assert_eq!(store.put(&policy(id), document).await.status, 201);
        }
        store.put("/api/v1/policies/acme2/z", "{}").await;
        let list = store.get("/api/v1/policies/acme").await;
        let expected = concat!(
            "{\"policies\":[{\"policy_id\":\"B\",\"x\":1},{\"policy_id\":\"a\"\n},{\"policy_id\":\"a.1\" },",
            "{ \"policy_id\" : \"a_1\" },{\"policy_id\":\"b\",\"n\":1}],\"etags\":"
        );
        let text = std::str::from_utf8(&list.body).unwrap();
        assert!(text.starts_with(expected), "{text}");
        let read: wire::List<'_> = serde_json::from_slice(&list.body).unwrap();
        assert_eq!(read.etags.len(), 5);
        assert_eq!(read.etags["a"], ETag::of_bytes(b"{\n}"));
        assert_eq!(list.revision(), 6);
        let same = store
            .send(
                Method::GET,
                "/api/v1/policies/acme",
                &[("if-none-match", list.etag())],
                "",
            )
            .await;
        assert_eq!(same.status, 304);
        let unknown = store.get("/api/v1/policies/nobody").await;
        assert_eq!(unknown.json(), json!({"policies": [], "etags": {}}));
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn every_problem_of_a_refused_policy_is_named() {
    let store = Running::start(config()).await;
    let refused = store.put(P, "{\"a\":1,\"b\":{\"c\":1,\"c\":2},\"a\":2}").await;
    assert_eq!(refused.error(), (422, "invalid_policy".into()));
    let problems = refused.json()["error"]["details"]["problems"].clone();
    let paths: Vec<_> = problems
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["path"].as_str().unwrap())
        .collect();
    assert_eq!(paths, ["$.b.c", "$.a"]);
    assert_eq!(store.put(P, "[]").await.error(), (422, "invalid_policy".into()));
    let broken = store.put(P, "{\"a\":").await;
    assert_eq!(broken.error(), (400, "invalid_json".into()));
    assert_eq!(broken.json()["error"]["details"]["problems"][0]["path"], "$");
    assert_eq!(store.put(P, " ").await.error(), (400, "invalid_json".into()));
    assert_eq!(store.get(SNAPSHOT).await.revision(), 0);
    store.stop().await;
}

#[tokio::test]
async fn bodies_are_limited_and_must_tell_their_length() {
    let store = Running::start(StoreConfig {
        max_body_bytes: 1000,
        max_module_bytes: 2000,
        ..config()
    })
    .await;
    let document = |size: usize| format!("{{\"a\":\"{}\"}}", "x".repeat(size - 8));
    assert_eq!(store.put(P, document(1000)).await.status, 201);
    let large = store.put(P, document(1001)).await;
    assert_eq!(large.error(), (413, "payload_too_large".into()));
    // Sent in full before the answer is read: the refusal arrives all the same.
    assert_eq!(store.put(P, document(5_000_000)).await.status, 413);
    let module = format!("/api/v1/modules/{}", "0".repeat(64));
    assert_eq!(store.put(&module, vec![0; 2001]).await.status, 413);
    for head in [
        "PUT /api/v1/policies/t/p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
        "PUT /api/v1/policies/t/p HTTP/1.1\r\nhost: x\r\n\r\n",
        "DELETE /api/v1/policies/t/p HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let answer = raw(store.address, head).await;
        assert!(answer.starts_with("HTTP/1.1 411 "), "{answer}");
        assert!(answer.contains("connection: close\r\n"), "{answer}");
        assert!(answer.contains("length_required"), "{answer}");
    }
    let waiting = "PUT /api/v1/policies/t/p HTTP/1.1\r\nhost: x\r\nexpect: 100-continue\r\ncontent-length: 1001\r\n\r\n";
    let answer = raw(store.address, waiting).await;
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    store.stop().await;
}

/// Sends these bytes and reads until the server closes.
async fn raw(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut answer));
    read.await.unwrap().unwrap();
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn paths_and_methods_are_exact() {
    let store = Running::start(config()).await;
    for (path, status) in [
        ("/", 404),
        ("/api/v1/policies", 404),
        ("/api/v1/policies/t/p/q", 404),
        ("/api/v1/snapshots", 404),
        ("/api/v1/modules", 404),
        ("/api/v1/extensions/a/b", 404),
        ("/api/v1/policies/t//", 400),
        ("/api/v1/policies/t/%2e%2e", 400),
        ("/api/v1/policies/t/a%20b", 400),
        ("/api/v1/extensions/a=b", 400),
        ("/api/v1/modules/ABC", 400),
        ("/health", 200),
        ("/%68ealth", 200),
    ] {
        assert_eq!(store.get(path).await.status, status, "{path}");
    }
    for (method, path, allow) in [
        (Method::POST, P, "GET, HEAD, PUT, DELETE"),
        (Method::PUT, "/api/v1/policies/acme", "GET, HEAD"),
        (Method::DELETE, SNAPSHOT, "GET, HEAD"),
        (Method::POST, "/health", "GET, HEAD"),
        (Method::HEAD, "/api/v1/changes?since=0", "GET"),
        (Method::PATCH, "/api/v1/extensions/x", "GET, HEAD, PUT, DELETE"),
    ] {
        let refused = store.send(method, path, &[("content-length", "0")], "").await;
        assert_eq!(
            (refused.status.as_u16(), refused.header("allow")),
            (405, Some(allow)),
            "{path}"
        );
    }
    store.stop().await;
}

#[tokio::test]
async fn without_the_token_only_health_answers() {
    let store = Running::start(StoreConfig {
        token: Some("s3cret".to_owned().into()),
        ..config()
    })
    .await;
    assert_eq!(store.get("/health").await.status, 200);
    for path in [P, SNAPSHOT, "/nothing", "/api/v1/policies/%2e/x"] {
        let refused = store.get(path).await;
        assert_eq!(refused.error(), (401, "unauthorized".into()), "{path}");
        assert_eq!(refused.header("www-authenticate"), Some("Bearer"));
    }
    for wrong in [
        "Bearer s3cre",
        "Bearer s3cretx",
        "Basic s3cret",
        "s3cret",
        "Bearer",
    ] {
        let refused = store
            .send(Method::PUT, P, &[("authorization", wrong)], "{}")
            .await;
        assert_eq!(refused.status, 401, "{wrong}");
    }
    for right in ["Bearer s3cret", "bearer s3cret"] {
        let got = store
            .send(Method::GET, SNAPSHOT, &[("authorization", right)], "")
            .await;
        assert_eq!(got.revision(), 0);
    }
    store.stop().await;
}

#[tokio::test]
async fn a_lower_level_knows_no_more_than_an_older_heir() {
    let folder = Scratch::sqlite();
    let statuses = async |level| {
        let store = folder.start_with(|config| config.level = level).await;
        store.put(P, "{}").await;
        let mut statuses = Vec::new();
        for path in [
            P,
            "/api/v1/policies/acme",
            SNAPSHOT,
            "/api/v1/extensions",
            "/api/v1/changes?since=0",
        ] {
            statuses.push(store.get(path).await.status.as_u16());
        }
        (store, statuses)
    };
    let (store, found) = statuses(Level::Single).await;
    assert_eq!(found, [200, 404, 404, 404, 404]);
    let headers = [
        ("if-match", "\"x\""),
        ("if-none-match", "*"),
        ("idempotency-key", "k"),
    ];
    for body in ["{\"a\":1}", "{\"a\":2}"] {
        let put = store.send(Method::PUT, P, &headers, body).await;
        assert_eq!((put.status, put.json()), (StatusCode::OK, json!({"ok": true})));
        assert_eq!(
            (put.header("etag"), put.header(wire::REVISION_HEADER)),
            (None, None)
        );
        let got = store.send(Method::GET, P, &headers, "").await;
        assert_eq!((got.status, &got.body[..]), (StatusCode::OK, body.as_bytes()));
        assert_eq!(
            (got.header("etag"), got.header(wire::REVISION_HEADER)),
            (None, None)
        );
    }
    assert_eq!(store.put(P, "[]").await.status, 422);
    let deleted = store.send(Method::DELETE, P, &headers, "").await;
    assert_eq!(
        (deleted.status, deleted.header(wire::REVISION_HEADER)),
        (StatusCode::NO_CONTENT, None)
    );
    store.stop().await;

    let (store, found) = statuses(Level::List).await;
    assert_eq!(found, [200, 200, 404, 404, 404]);
    let list = store.get("/api/v1/policies/acme").await;
    assert_eq!(list.json(), json!({"policies": [{"policy_id": "chat"}]}));
    assert_eq!(
        (list.header("etag"), list.header(wire::REVISION_HEADER)),
        (None, None)
    );
    store.stop().await;

    let (store, found) = statuses(Level::Snapshot).await;
    assert_eq!(found, [200, 200, 200, 200, 404]);
    assert!(store.get(P).await.header("etag").is_some());
    store.stop().await;
    let (store, found) = statuses(Level::Changes).await;
    assert_eq!(found, [200; 5]);
    store.stop().await;
    assert!(Level::Single < Level::List && Level::Snapshot < Level::Changes);
}

#[tokio::test]
async fn extensions_are_records_with_revisions() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let put = store.put("/api/v1/extensions/pii", "{\"module\":\"abc\"}").await;
        assert_eq!((put.status, put.revision()), (StatusCode::CREATED, 1));
        store
            .put("/api/v1/extensions/budget", "{\"id\":\"budget\"}")
            .await;
        assert_eq!(
            store.get("/api/v1/extensions/pii").await.body,
            "{\"module\":\"abc\"}"
        );
        assert_eq!(
            store.put("/api/v1/extensions/x", "[]").await.error(),
            (422, "invalid_policy".into())
        );
        let list = store.get("/api/v1/extensions").await;
        let expected = json!([{"id": "budget"}, {"id": "pii", "module": "abc"}]);
        assert_eq!(list.json()["extensions"], expected);

        let (revision, found) = read_snapshot(&store.get(SNAPSHOT).await.body);
        assert_eq!(revision, 2);
        assert_eq!(found["pii"], (1, "{\"module\":\"abc\"}".into()));
        store.put("/api/v1/extensions/pii", "{\n}").await;
        store.delete("/api/v1/extensions/budget").await;
        let answer = store.get("/api/v1/changes?since=2").await;
        let changes: wire::Changes<'_> = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((changes.from, changes.to), (2, 4));
        let told: Vec<_> = changes
            .changes
            .iter()
            .map(|c| {
                (
                    &*c.op,
                    &*c.kind,
                    c.id.as_deref().unwrap(),
                    c.extension.map(|e| e.get()),
                )
            })
            .collect();
        let expected = [
            ("put", "extension", "pii", Some("{ }")),
            ("delete", "extension", "budget", None),
        ];
        assert_eq!(told, expected);
        assert!(
            changes
                .changes
                .iter()
                .all(|c| c.policy.is_none() && c.policy_id.is_none())
        );
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn modules_are_what_their_name_says() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let bytes: Vec<u8> = (0..3_000_000_u32).map(|n| n.to_le_bytes()[0]).collect();
        let digest: String = Sha256::digest(&bytes)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let path = format!("/api/v1/modules/{digest}");
        assert_eq!(store.get(&path).await.error(), (404, "not_found".into()));
        assert_eq!(store.put(&path, "other").await.status, 422);
        assert_eq!(store.put(&path, bytes.clone()).await.status, 201);
        assert_eq!(store.put(&path, bytes.clone()).await.status, 200);
        let got = store.get(&path).await;
        assert!(got.body == bytes);
        assert_eq!(got.etag(), format!("\"{digest}\""));
        assert_eq!(got.header("content-type"), Some("application/wasm"));
        assert_eq!(
            got.header("cache-control"),
            Some("public, max-age=31536000, immutable")
        );
        let head = store.send(Method::HEAD, &path, &[], "").await;
        assert_eq!(
            (head.status, head.header("content-length")),
            (StatusCode::OK, Some("3000000"))
        );
        let known = store
            .send(Method::GET, &path, &[("if-none-match", got.etag())], "")
            .await;
        assert_eq!((known.status, known.body.len()), (StatusCode::NOT_MODIFIED, 0));
        assert_eq!(store.get(SNAPSHOT).await.revision(), 0);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_snapshot_is_one_moment_however_much_is_written() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let writers: Vec<_> = (0..4)
            .map(|writer| {
                let client = store.client.clone();
                tokio::spawn(async move {
                    for n in 0..30 {
                        let document = format!("{{\n\"n\": {n}}}");
                        let put = client
                            .put(&policy(format!("w{writer}-{}", n % 7)), document)
                            .await;
                        assert!(put.status.is_success());
                    }
                })
            })
            .collect();
        let mut last = 0;
        while writers.iter().any(|writer| !writer.is_finished()) {
            let snapshot = store.get(SNAPSHOT).await;
            let (revision, found) = read_snapshot(&snapshot.body);
            assert_eq!(snapshot.revision(), revision);
            // Nothing is deleted here, so the newest write is always in sight.
            let newest = found.values().map(|(revision, _)| *revision).max().unwrap_or(0);
            assert_eq!(newest, revision);
            assert!(revision >= last);
            last = revision;
        }
        for writer in writers {
            writer.await.unwrap();
        }
        let snapshot = store.get(SNAPSHOT).await;
        assert_eq!(snapshot.header("content-type"), Some("application/x-ndjson"));
        let (revision, found) = read_snapshot(&snapshot.body);
        assert_eq!((revision, found.len()), (120, 28));
        assert_eq!(found["acme/w0-0"].1, "{\n\"n\": 28}");
        let known = [("if-none-match", snapshot.etag())];
        let same = store.send(Method::GET, SNAPSHOT, &known, "").await;
        assert_eq!((same.status, same.revision()), (StatusCode::NOT_MODIFIED, 120));
        store.put(&policy("new"), "{}").await;
        assert_eq!(store.send(Method::GET, SNAPSHOT, &known, "").await.status, 200);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn changes_lead_from_any_revision_to_the_present() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let (start, genesis) = store.position().await;
        assert_eq!(start, 0);
        store.put(P, "{\n}").await;
        let (_, first) = store.position().await;
        store.put(&policy("b"), "{\"b\":1}").await;
        store.delete(P).await;
        let (now, last) = store.position().await;
        assert_eq!(now, 3);

        let answer = store
            .get(&format!("/api/v1/changes?since=0&chain={genesis}"))
            .await;
        let changes: wire::Changes<'_> = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!((changes.from, changes.to), (0, 3));
        assert_eq!(changes.from_chain.as_deref(), Some(&*genesis));
        assert_eq!(changes.to_chain.as_deref(), Some(&*last));
        let told: Vec<_> = changes
            .changes
            .iter()
            .map(|c| (&*c.op, c.revision.unwrap(), c.policy_id.as_deref().unwrap()))
            .collect();
        assert_eq!(told, [("put", 1, "chat"), ("put", 2, "b"), ("delete", 3, "chat")]);
        let put = &changes.changes[0];
        assert_eq!(
            wire::exact_bytes(put.policy.unwrap(), put.policy_text.as_deref()),
            "{\n}"
        );
        assert_eq!(put.etag.as_deref(), Some(ETag::of_bytes(b"{\n}").as_str()));
        assert_eq!(put.tenant_id.as_deref(), Some("acme"));

        let some = store.get(&format!("/api/v1/changes?since=1&chain={first}")).await;
        assert_eq!(some.json()["changes"].as_array().unwrap().len(), 2);
        let none = store.get("/api/v1/changes?since=3").await;
        let expected = json!({"from": 3, "to": 3, "from_chain": last, "to_chain": last, "changes": []});
        assert_eq!(none.json(), expected);
        for bad in ["", "?since=x", "?since=0&wait_ms=-1", "?since=0&chain=zz"] {
            let refused = store.get(&format!("/api/v1/changes{bad}")).await;
            assert_eq!(refused.error(), (400, "invalid_request".into()), "{bad}");
        }
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_waiting_client_hears_of_a_write_at_once() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        let wait = |since: u64, wait_ms: u64| {
            let client = store.client.clone();
            tokio::spawn(async move {
                let path = format!("/api/v1/changes?since={since}&wait_ms={wait_ms}");
                let answer = client.get(&path).await;
                (answer.json()["to"].as_u64().unwrap(), Instant::now())
            })
        };
        let started = Instant::now();
        let (to, heard) = wait(0, 300).await.unwrap();
        assert_eq!(to, 0);
        assert!(heard - started >= Duration::from_millis(300));

        let mut quickest = Duration::MAX;
        for round in 0..3 {
            let waiting: Vec<_> = (0..10).map(|_| wait(round, 30_000)).collect();
            tokio::time::sleep(Duration::from_millis(200)).await;
            assert!(waiting.iter().all(|client| !client.is_finished()));
            store.put(P, format!("{{\"n\":{round}}}")).await;
            let written = Instant::now();
            let mut slowest = Duration::ZERO;
            for client in waiting {
                let (to, heard) = client.await.unwrap();
                assert_eq!(to, round + 1);
                slowest = slowest.max(heard.saturating_duration_since(written));
            }
            quickest = quickest.min(slowest);
        }
        // Once is enough on a busy machine. Heard of by looking once a second, each round but the first would
        // take the better part of one.
        assert!(quickest < Duration::from_millis(300), "{quickest:?}");
        // A stop does not wait for those who wait.
        let waiting = wait(3, 30_000);
        tokio::time::sleep(Duration::from_millis(200)).await;
        store.stop().await;
        assert_eq!(waiting.await.unwrap().0, 3);
    })
    .await;
}

#[tokio::test]
async fn a_store_connects_again_when_its_database_comes_back() {
    let Some(server) = postgres() else { return };
    let scratch = Scratch::postgres(server.clone(), "template0").await;
    let store = scratch.start().await;
    store.put(P, "{}").await;
    let sql = format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{}'",
        scratch.name()
    );
    on_server(&server, sql).await;
    assert_eq!(store.get(P).await.body, "{}");
    assert_eq!(store.put(P, "{\"n\":2}").await.revision(), 2);
    store.stop().await;
    scratch.remove().await;
}

#[tokio::test]
async fn stores_that_share_a_database_take_turns_and_hear_of_each_other() {
    everywhere(async |scratch| {
        let (one, two) = tokio::join!(scratch.start(), async {
            // Not at the same instant: which of two processes creates the tables is the operator's choice.
            tokio::time::sleep(Duration::from_millis(300)).await;
            scratch.start().await
        });
        let waiting = {
            let client = two.client.clone();
            tokio::spawn(async move { client.get("/api/v1/changes?since=0&wait_ms=30000").await })
        };
        tokio::time::sleep(Duration::from_millis(200)).await;
        let written = Instant::now();
        one.put(P, "{}").await;
        assert_eq!(waiting.await.unwrap().json()["to"], 1);
        assert!(written.elapsed() < Duration::from_secs(3));

        let writers: Vec<_> = (0..8)
            .map(|writer| {
                let client = if writer % 2 == 0 { &one } else { &two }.client.clone();
                tokio::spawn(async move {
                    let mut revisions = Vec::new();
                    for n in 0..10 {
                        let put = client.put(&policy(format!("{writer}-{n}")), "{}").await;
                        assert_eq!(put.status, 201);
                        revisions.push(put.revision());
                    }
                    revisions
                })
            })
            .collect();
        let mut revisions = Vec::new();
        for writer in writers {
            revisions.extend(writer.await.unwrap());
        }
        revisions.sort_unstable();
        assert_eq!(revisions, (2..=81).collect::<Vec<_>>());
        assert_eq!(one.position().await, two.position().await);
        one.stop().await;
        two.stop().await;
    })
    .await;
}

#[tokio::test]
async fn forgotten_changes_ask_for_a_snapshot() {
    everywhere(async |scratch| {
        let store = scratch.start_with(|config| config.changes_kept = 5).await;
        let mut chains = vec![store.position().await.1];
        for n in 0..20 {
            store.put(P, format!("{{\"n\":{n}}}")).await;
            chains.push(store.position().await.1);
        }
        assert_eq!(store.get("/api/v1/changes?since=0").await.reason(), "compacted");
        let old = format!("/api/v1/changes?since=3&chain={}", chains[3]);
        assert_eq!(store.get(&old).await.reason(), "compacted");
        for since in 15..=20 {
            let path = format!("/api/v1/changes?since={since}&chain={}", chains[since]);
            let answer = store.get(&path).await;
            assert_eq!(answer.json()["changes"].as_array().unwrap().len(), 20 - since);
            assert_eq!(answer.json()["to_chain"], chains[20].as_str());
        }
        assert_eq!(store.get("/api/v1/changes?since=21").await.reason(), "restored");
        let endless = format!("/api/v1/changes?since={}0", u64::MAX);
        assert_eq!(store.get(&endless).await.reason(), "restored");
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_restored_store_is_not_taken_for_the_one_before() {
    everywhere(async |scratch| {
        let store = scratch.start().await;
        store.put(P, "{}").await;
        store.put(P, "{\"n\":2}").await;
        let (revision, shared) = store.position().await;
        assert_eq!(revision, 2);
        store.stop().await;
        let backup = scratch.copy().await;

        let store = scratch.start().await;
        store.put(P, "{\"n\":3}").await;
        let (revision, before) = store.position().await;
        assert_eq!(revision, 3);
        store.stop().await;

        let store = backup.start().await;
        let path = format!("/api/v1/changes?since=3&chain={before}");
        assert_eq!(store.get(&path).await.reason(), "restored");
        store.put(P, "{\"n\":\"another\"}").await;
        assert_eq!(store.position().await.0, 3);
        assert_eq!(store.get(&path).await.reason(), "restored");
        store.put(P, "{\"n\":4}").await;
        assert_eq!(store.get(&path).await.reason(), "restored");
        let path = format!("/api/v1/changes?since=2&chain={shared}");
        assert_eq!(store.get(&path).await.json()["to"], 4);
        store.stop().await;
        backup.remove().await;

        // A new store with the same writes has a history of its own.
        let store = Running::start(config()).await;
        store.put(P, "{}").await;
        store.put(P, "{\"n\":2}").await;
        assert_eq!(store.get(&path).await.reason(), "restored");
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn good_files_are_imported_and_bad_ones_named() {
    everywhere(async |scratch| {
        let folder = scratch.folder.path().join("policies");
        let write = |name: &str, text: &str| {
            let path = folder.join(name);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(&path, text).unwrap();
        };
        write("acme/chat.json", "{\n}");
        write("acme/same.json", "{}");
        write("acme/torn.json", "{\"a\":");
        write("acme/twice.json", "{\"a\":1,\"a\":2,\"b\":1,\"b\":2}");
        write("acme/notes.txt", "not a policy");
        write("acme/b d.json", "{}");
        write("acme/large.json", &format!("{{\"a\":\"{}\"}}", "x".repeat(2000)));
        write("no tenant/p.json", "{}");
        write("README.md", "hello");
        write("..data/p.json", "{}");
        let start = async || {
            let config = StoreConfig {
                database: scratch.database.clone(),
                import: Some(folder.clone()),
                max_body_bytes: 1000,
                ..config()
            };
            let store = Store::build(config).await.unwrap();
            store.import().unwrap().clone()
        };
        let import = start().await;
        assert_eq!((import.created, import.replaced, import.unchanged), (2, 0, 0));
        let bad: Vec<(PathBuf, usize)> = import
            .bad
            .iter()
            .map(|bad| {
                (
                    bad.path.strip_prefix(&folder).unwrap().to_owned(),
                    bad.problems.len(),
                )
            })
            .collect();
        let expected = [
            ("README.md", 1),
            ("acme/b d.json", 1),
            ("acme/large.json", 1),
            ("acme/notes.txt", 1),
            ("acme/torn.json", 1),
            ("acme/twice.json", 2),
            ("no tenant", 1),
        ];
        assert_eq!(
            bad,
            expected.map(|(path, problems)| (PathBuf::from(path), problems))
        );

        write("acme/chat.json", "{\"n\":2}");
        let import = start().await;
        assert_eq!((import.created, import.replaced, import.unchanged), (0, 1, 1));
        let store = scratch.start().await;
        assert_eq!(store.get(P).await.body, "{\"n\":2}");
        assert_eq!(store.position().await.0, 3);
        store.stop().await;
    })
    .await;
    let missing = StoreConfig {
        import: Some("/nowhere/at all".into()),
        ..config()
    };
    let error = Store::build(missing).await.unwrap_err().to_string();
    assert_eq!(error, "cannot import the policies in /nowhere/at all");
}

#[tokio::test]
async fn many_policies_come_in_pages_and_none_is_lost() {
    everywhere(async |scratch| {
        let folder = scratch.folder.path().join("policies");
        for tenant in ["a", "b"] {
            std::fs::create_dir_all(folder.join(tenant)).unwrap();
            for n in 0..600 {
                let path = folder.join(format!("{tenant}/p{n}.json"));
                std::fs::write(path, format!("{{\"n\":{n}}}")).unwrap();
            }
        }
        let store = scratch
            .start_with(|config| config.import = Some(folder.clone()))
            .await;
        let (revision, found) = read_snapshot(&store.get(SNAPSHOT).await.body);
        assert_eq!((revision, found.len()), (1200, 1200));
        let list = store.get("/api/v1/policies/b").await;
        let list: wire::List<'_> = serde_json::from_slice(&list.body).unwrap();
        let ids: Vec<_> = list
            .policies
            .iter()
            .map(|p| {
                let listed: wire::Listed<'_> = serde_json::from_str(p.get()).unwrap();
                listed.policy_id.into_owned()
            })
            .collect();
        assert_eq!((ids.len(), list.etags.len()), (600, 600));
        assert!(ids.is_sorted());

        let first = store.get("/api/v1/changes?since=0").await.json();
        assert_eq!(
            (first["to"].as_u64(), first["changes"].as_array().unwrap().len()),
            (Some(1000), 1000)
        );
        let chain = first["to_chain"].as_str().unwrap();
        let rest = store
            .get(&format!("/api/v1/changes?since=1000&chain={chain}"))
            .await
            .json();
        assert_eq!(
            (rest["to"].as_u64(), rest["changes"].as_array().unwrap().len()),
            (Some(1200), 200)
        );

        let document = format!("{{\"a\":\"{}\"}}", "x".repeat(1_000_000));
        for n in 0..12 {
            store.put(&policy(n), document.clone()).await;
        }
        let large = store.get("/api/v1/changes?since=1200").await;
        assert_eq!(large.json()["changes"].as_array().unwrap().len(), 9);
        assert_eq!(large.json()["to"], 1209);
        store.stop().await;
    })
    .await;
}

#[tokio::test]
async fn a_database_that_cannot_be_opened_is_named_without_its_password() {
    let broken = StoreConfig {
        database: "/nowhere/at/all.db".to_owned(),
        ..config()
    };
    let error = Store::build(broken).await.unwrap_err().to_string();
    assert_eq!(
        error,
        "cannot open the policy store's database (/nowhere/at/all.db)"
    );
    let broken = StoreConfig {
        database: "postgres://me:s3cret@127.0.0.1:1/db".to_owned(),
        ..config()
    };
    assert!(!format!("{broken:?}").contains("s3cret"));
    let error = Store::build(broken).await.unwrap_err();
    assert!(!format!("{error} {error:?}").contains("s3cret"));
}

// === what was acknowledged outlives kill -9 ===

/// In the directory of a child process: the database that it is to serve.
const SERVE_HERE: &str = "serve-here";

/// Not a test: the process that the next one kills. Without its file it does nothing.
#[tokio::test]
#[ignore = "started by the test below, in a process of its own"]
async fn serve_until_killed() {
    let Ok(database) = std::fs::read_to_string(SERVE_HERE) else {
        return;
    };
    let store = Store::build(StoreConfig { database, ..config() }).await.unwrap();
    std::fs::write("address.new", store.address().to_string()).unwrap();
    std::fs::rename("address.new", "address").unwrap();
    store.run(CancellationToken::new()).await;
}

async fn serve_in_a_child(scratch: &Scratch, folder: &Path) -> (tokio::process::Child, TestClient) {
    std::fs::write(folder.join(SERVE_HERE), &scratch.database).unwrap();
    let child = tokio::process::Command::new(std::env::current_exe().unwrap())
        .args(["--ignored", "--exact", "store::serve_until_killed"])
        .current_dir(folder)
        .stdout(std::process::Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let place = folder.join("address");
    let deadline = Instant::now() + Duration::from_secs(20);
    while !place.exists() {
        assert!(Instant::now() < deadline, "the child did not come up");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let address = std::fs::read_to_string(&place).unwrap().parse().unwrap();
    std::fs::remove_file(&place).unwrap();
    (child, TestClient::new(address))
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_when_the_process_is_killed() {
    everywhere(async |scratch| {
        let folder = scratch.folder.path();
        let mut acknowledged: BTreeMap<String, (u64, String)> = BTreeMap::new();
        for round in 0..3 {
            let (mut child, client) = serve_in_a_child(scratch, folder).await;
            let writers: Vec<_> = (0..4)
                .map(|writer| {
                    let client = client.clone();
                    tokio::spawn(async move {
                        let mut mine = BTreeMap::new();
                        for n in 0.. {
                            let path = policy(format!("w{writer}-{}", n % 5));
                            let body = format!("{{\"round\":{round},\"n\":{n}}}");
                            let sent = client.try_send(Method::PUT, &path, &[], body.clone()).await;
                            // The one that was under way when the process died may have been written or not.
                            let Some(put) = sent else {
                                return (mine, Some((path, body)));
                            };
                            mine.insert(path, (put.revision(), body));
                        }
                        unreachable!("the writer writes until the store is gone")
                    })
                })
                .collect();
            tokio::time::sleep(Duration::from_millis(300)).await;
            child.kill().await.unwrap();
            let mut doubtful = Vec::new();
            for writer in writers {
                let (mine, last) = writer.await.unwrap();
                acknowledged.extend(mine);
                doubtful.extend(last);
            }
            assert!(!acknowledged.is_empty());

            let store = scratch.start().await;
            for (path, (revision, body)) in &mut acknowledged {
                let got = store.get(path).await;
                let found = String::from_utf8(got.body.to_vec()).unwrap();
                if doubtful.contains(&(path.clone(), found.clone())) {
                    (*revision, *body) = (got.revision(), found);
                } else {
                    assert_eq!((got.revision(), &found), (*revision, &*body), "{path}");
                }
            }
            let mut since = 0;
            loop {
                let changes = store.get(&format!("/api/v1/changes?since={since}")).await.json();
                for change in changes["changes"].as_array().unwrap() {
                    since += 1;
                    assert_eq!(change["revision"].as_u64(), Some(since));
                }
                if changes["changes"].as_array().unwrap().is_empty() {
                    break;
                }
            }
            assert_eq!(store.position().await.0, since);
            store.stop().await;
        }
    })
    .await;
}
