//! Rows 18 and 37: answers that lead elsewhere, or nowhere.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use http::StatusCode;

use super::{SNAPSHOT, bytes, json_answer, refused_whole, snapshot_page, start, stream};
use crate::support::{QUICK, Say, Scripted, Sidecar, eventually};

#[tokio::test]
async fn hostile_18_a_redirect_is_never_followed() {
    let elsewhere = Scripted::start().await;
    elsewhere.on("GET ", json_answer(stream(9, &[("chat", "{\"evil\":1}")])));
    elsewhere.on("PUT ", json_answer("{}".into()));
    let (heir, sidecar) = start().await;
    for (status, location) in [
        (301, format!("location: {}/api/v1/snapshot\r\n", elsewhere.url())),
        (
            302,
            format!("location: //{}/api/v1/snapshot\r\n", elsewhere.address),
        ),
        (307, "location: file:///etc/passwd\r\n".to_owned()),
        (308, "location: http://169.254.169.254/latest/\r\n".to_owned()),
        (302, "location: /api/v1/snapshot2\r\n".to_owned()),
    ] {
        let redirect = || Say::Json(status, location.clone().leak(), "{}".into());
        refused_whole(
            &heir,
            &sidecar,
            redirect(),
            "a redirect; redirects are never followed",
        )
        .await;
        heir.on("GET /forwarded", redirect());
        let passed_on = sidecar.client().get("/forwarded").await;
        assert_eq!(passed_on.status.as_u16(), status, "whoever asked decides");
        heir.on("PUT ", redirect());
        let write = sidecar.client().put_policy("acme/new", "{}").await;
        assert_eq!(
            (write.status, write.code().as_str()),
            (StatusCode::BAD_GATEWAY, "heir_error")
        );
        assert_eq!(
            sidecar.client().policy("acme/new").await.status,
            StatusCode::NOT_FOUND
        );
    }
    sidecar.stop().await;

    let single = Scripted::start().await;
    single.on("GET /health", json_answer("{}".into()));
    single.on(
        "GET /api/v1/policies/",
        Say::Json(
            302,
            format!("location: {}/x\r\n", elsewhere.url()).leak(),
            "{}".into(),
        ),
    );
    let sidecar = Sidecar::start(&single.url(), "refresh: {interval_ms: 60000}");
    sidecar.wait_for("live").await;
    let answer = sidecar.client().policy("acme/chat").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::BAD_GATEWAY, "heir_error")
    );
    sidecar.stop().await;
    assert_eq!(elsewhere.requests(), Vec::<String>::new());
    assert_eq!(heir.count("GET /api/v1/snapshot2"), 0);
}

#[tokio::test]
async fn hostile_37_a_stream_that_stops_without_ending_times_out_and_is_recovered_from() {
    let (heir, sidecar) = start().await;
    let begun = format!(
        "HTTP/1.1 200 OK\r\ncontent-length: 1000\r\n\r\n{}",
        stream(2, &[]).lines().next().unwrap()
    );
    // An answer that begins, sends nothing more and keeps the connection: a proxy that lost its server.
    let half_open = HalfOpen::start(begun).await;
    for say in [Say::Silence, bytes("", "")] {
        let reason = if matches!(say, Say::Silence) {
            "did not answer within 5000 ms"
        } else {
            "ends before"
        };
        refused_whole(&heir, &sidecar, say, reason).await;
    }
    sidecar.stop().await;

    let sidecar = Sidecar::start(
        &format!("http://{}", half_open.address),
        "refresh: {interval_ms: 50}",
    );
    eventually("the refresh is given up", || async {
        snapshot_page(&sidecar).await["refresh"]["last_error"]
            .as_str()
            .is_some_and(|error| error.contains("did not answer within 3000 ms"))
    })
    .await;
    assert_eq!(
        sidecar.admin().get("/ready").await.status,
        StatusCode::SERVICE_UNAVAILABLE
    );
    half_open.heal(stream(3, &[("chat", "{\"weights\":{\"a\":1.0}}")]));
    sidecar.wait_for("live").await;
    assert_eq!(sidecar.client().policy("acme/chat").await.status, StatusCode::OK);
    half_open.relapse();
    sidecar.wait_for("degraded").await;
    assert_eq!(snapshot_page(&sidecar).await["refresh"]["state"], "interrupted");
    assert_eq!(
        sidecar.client().policy("acme/chat").await.text(),
        "{\"weights\":{\"a\":1.0}}"
    );
    half_open.heal(stream(4, &[("chat", "{\"back\":1}")]));
    eventually("it recovers", || async {
        sidecar.client().policy("acme/chat").await.text() == "{\"back\":1}"
    })
    .await;
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_37_a_long_poll_that_is_never_answered_is_given_up() {
    let heir = Scripted::start().await;
    heir.on("GET /health", json_answer("{}".into()));
    heir.on(
        SNAPSHOT,
        json_answer(stream(1, &[("chat", "{\"weights\":{\"a\":1.0}}")])),
    );
    heir.on("GET /api/v1/changes", Say::Silence);
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: '{}', timeout_ms: 200, breaker: {{failure_threshold: 1000}}}}\nrefresh: {{interval_ms: 50, long_poll_timeout_ms: 100}}",
        heir.url()
    ))
    .unwrap();
    sidecar.wait_for("degraded").await;
    let page = snapshot_page(&sidecar).await;
    assert_eq!(page["refresh"]["state"], "interrupted");
    let error = page["refresh"]["last_error"].as_str().unwrap();
    assert!(error.starts_with("HEIR did not answer within"), "{error}");
    assert_eq!(
        sidecar.client().policy("acme/chat").await.text(),
        "{\"weights\":{\"a\":1.0}}"
    );
    let changes = "{\"from\":1,\"to\":2,\"changes\":[{\"op\":\"put\",\"kind\":\"policy\",\"tenant_id\":\"acme\",\
                   \"policy_id\":\"chat\",\"revision\":2,\"policy\":{\"new\":1}}]}";
    heir.on("GET /api/v1/changes?since=1", json_answer(changes.into()));
    heir.on(
        "GET /api/v1/changes?since=2",
        json_answer("{\"from\":2,\"to\":2,\"changes\":[]}".into()),
    );
    sidecar.wait_for("live").await;
    assert_eq!(sidecar.client().policy("acme/chat").await.text(), "{\"new\":1}");
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_37_a_snapshot_that_comes_drop_by_drop_keeps_no_caller_waiting() {
    let begun = format!(
        "HTTP/1.1 200 OK\r\n\r\n{}\n",
        stream(2, &[]).lines().next().unwrap()
    );
    let half_open = HalfOpen::start_dripping(begun).await;
    half_open.heal(stream(1, &[("chat", "{\"weights\":{\"a\":1.0}}")]));
    let sidecar = Sidecar::try_start(&format!(
        "{QUICK}heir: {{url: 'http://{}', timeout_ms: 300}}\nrefresh: {{interval_ms: 50, stale_after_ms: 500}}",
        half_open.address
    ))
    .unwrap();
    sidecar.wait_for("live").await;
    half_open.relapse();
    // Its age shows that the refresh makes no progress.
    sidecar.wait_for("degraded").await;
    let list = sidecar.client().get("/api/v1/policies/acme").await;
    assert_eq!(
        list.text(),
        "{\"policies\":[{\"policy_id\":\"chat\",\"weights\":{\"a\":1.0}}]}"
    );
    assert_eq!(list.header("x-beamline-stale"), "true");
    assert_eq!(
        sidecar
            .client()
            .policy("acme/chat")
            .await
            .header("x-beamline-freshness"),
        "stale"
    );
    sidecar.stop().await;
}

/// A server that sends the beginning of a snapshot and then neither more nor the end of the connection.
struct HalfOpen {
    address: std::net::SocketAddr,
    healed: std::sync::Arc<std::sync::Mutex<Option<String>>>,
}

impl HalfOpen {
    async fn start(begun: String) -> Self {
        Self::serve(begun, false).await
    }

    /// One that does send more, an empty line at a time and without an end.
    async fn start_dripping(begun: String) -> Self {
        Self::serve(begun, true).await
    }

    async fn serve(begun: String, drips: bool) -> Self {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let healed = std::sync::Arc::<std::sync::Mutex<Option<String>>>::default();
        let heals = healed.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (heals, begun) = (heals.clone(), begun.clone());
                tokio::spawn(async move {
                    let mut head = vec![0; 4096];
                    let read = stream.read(&mut head).await.unwrap();
                    let good = heals.lock().unwrap().clone();
                    let asked = String::from_utf8_lossy(&head[..read]).into_owned();
                    let answer = match good {
                        _ if asked.starts_with("GET /health") => "{}".to_owned(),
                        Some(good) if asked.starts_with(SNAPSHOT) => good,
                        None if asked.starts_with(SNAPSHOT) => {
                            stream.write_all(begun.as_bytes()).await.unwrap();
                            while drips && stream.write_all(b"\n").await.is_ok() {
                                tokio::time::sleep(std::time::Duration::from_millis(20)).await;
                            }
                            // Until the client gives up.
                            let _gone = stream.read(&mut head).await;
                            return;
                        }
                        _ => {
                            let no = b"HTTP/1.1 404 X\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                            stream.write_all(no).await.unwrap();
                            return;
                        }
                    };
                    let text = format!("HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n{answer}");
                    stream.write_all(text.as_bytes()).await.unwrap();
                });
            }
        });
        Self { address, healed }
    }

    fn heal(&self, snapshot: String) {
        *self.healed.lock().unwrap() = Some(snapshot);
    }

    fn relapse(&self) {
        *self.healed.lock().unwrap() = None;
    }
}
