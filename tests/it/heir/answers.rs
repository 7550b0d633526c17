//! Rows 15 and 16: answers of the wrong length, coding or content.

use http::StatusCode;
use serde_json::json;

use super::{SNAPSHOT, bytes, json_answer, refused_whole, snapshot_page, start, stream};
use crate::support::{Say, Scripted, Sidecar, eventually};

#[tokio::test]
async fn hostile_15_an_answer_of_the_wrong_length_or_coding_is_refused_whole() {
    let (heir, sidecar) = start().await;
    let body = stream(2, &[("chat", "{\"evil\":1}")]);
    let length = body.len();
    for (say, reason) in [
        (
            bytes(&format!("content-length: {}\r\n", length + 10), &body),
            "the connection to HEIR broke",
        ),
        (
            bytes(&format!("content-length: {}\r\n", length - 20), &body),
            "a line of the snapshot",
        ),
        (
            bytes(
                &format!("content-length: {}\r\ncontent-length: 3\r\n", length),
                &body,
            ),
            "broke",
        ),
        (bytes("content-length: +5\r\n", &body), "broke"),
        (
            bytes("transfer-encoding: chunked\r\n", "zz\r\n{}\r\n0\r\n\r\n"),
            "broke",
        ),
        (
            bytes(
                "transfer-encoding: chunked\r\n",
                format!("{length:x}\r\n{body}\r\n"),
            ),
            "broke",
        ),
        (bytes("transfer-encoding: gzip, chunked\r\n", &body), "broke"),
        // A body that ends with the connection and lacks its end line.
        (bytes("", &body[..length - 5]), "a line of the snapshot"),
        (
            bytes("", stream(2, &[]).lines().next().unwrap()),
            "ends before its end line",
        ),
        (
            bytes("", body.replace("\"count\":1", "\"count\":2")),
            "its end says 2",
        ),
        (
            bytes(
                &format!("content-encoding: gzip\r\ncontent-length: {length}\r\n"),
                &body,
            ),
            "encoded as \"gzip\"",
        ),
        (
            bytes("content-encoding: br\r\n", [0x1b, 0xff, 0xff]),
            "encoded as \"br\"",
        ),
    ] {
        refused_whole(&heir, &sidecar, say, reason).await;
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_15_an_answer_without_end_is_cut_off() {
    let (heir, sidecar) = start().await;
    let head = b"HTTP/1.1 200 OK\r\ncontent-type: application/x-ndjson\r\n\r\n".to_vec();
    let begin = [
        &head[..],
        b"{\"kind\":\"snapshot\",\"format\":1,\"revision\":9}\n",
    ]
    .concat();
    let line = b"{\"kind\":\"novelty\",\"id\":\"0123456789012345678901234567890123456789\"}\n".to_vec();
    let more = "has more than 1048576 bytes";
    refused_whole(&heir, &sidecar, Say::Endless(begin.clone(), line), more).await;
    let endless_line = Say::Endless(begin.clone(), vec![b'x'; 4096]);
    refused_whole(
        &heir,
        &sidecar,
        endless_line,
        "a line of the snapshot is too long",
    )
    .await;
    refused_whole(&heir, &sidecar, Say::Endless(begin, vec![b'\n'; 4096]), more).await;
    sidecar.stop().await;
    // The same for one policy, and for what is passed on: the reader decides when it has enough.
    let heir = Scripted::start().await;
    heir.on("GET /health", json_answer("{}".into()));
    let body = [&head[..], b"{\"a\":\""].concat();
    heir.on(
        "GET /api/v1/policies/acme/chat ",
        Say::Endless(body, vec![b'x'; 4096]),
    );
    let sidecar = Sidecar::start(&heir.url(), "limits: {max_body_bytes: 65536}");
    sidecar.wait_for("live").await;
    let answer = sidecar.client().policy("acme/chat").await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::BAD_GATEWAY, "heir_error")
    );
    assert!(
        answer.text().contains("more than 65536 bytes"),
        "{}",
        answer.text()
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_16_what_is_no_sound_json_sinks_itself_and_nothing_else() {
    let (heir, sidecar) = start().await;
    let deepest = format!("{}1{}", "[".repeat(30_000), "]".repeat(30_000));
    let deep = format!("{{\"d\":{}{}}}", "[".repeat(100), "]".repeat(100));
    for (document, message) in [
        (deep.as_str(), "nested deeper than 64 levels"),
        ("{\"a\":1,\"b\":{\"x\":1,\"x\":2}}", "$.b"),
        ("{\"a\":1e400}", "number out of range"),
        ("null", "HEIR sent no document"),
        ("[]", "the document is an array"),
        ("\"text\"", "the document is a string"),
        (deepest.as_str(), "nested deeper than 64 levels"),
    ] {
        let body = stream(
            2,
            &[
                ("chat", document),
                ("other", "{\"weights\":{\"b\":1.0}}"),
                ("third", document),
            ],
        );
        heir.on(SNAPSHOT, json_answer(body));
        eventually(&format!("the others are taken: {message}"), || async {
            sidecar.client().policy("acme/other").await.text() == "{\"weights\":{\"b\":1.0}}"
        })
        .await;
        let page = snapshot_page(&sidecar).await;
        assert_eq!(page["problem_count"], 2, "{message}: {page}");
        for (index, policy) in ["chat", "third"].into_iter().enumerate() {
            let problem = &page["problems"][index];
            assert_eq!(
                (&problem["tenant_id"], &problem["policy_id"]),
                (&json!("acme"), &json!(policy))
            );
            assert!(
                problem["problems"].to_string().contains(message),
                "{problem} lacks {message}"
            );
            assert_ne!(problem["problems"][0]["remedy"], "");
        }
        assert_eq!(sidecar.metric("beamline_sidecar_snapshot_problems").await, 2.0);
        let kept = sidecar.client().policy("acme/chat").await;
        assert_eq!(
            (kept.status, kept.text()),
            (StatusCode::OK, "{\"weights\":{\"a\":1.0}}"),
            "{message}"
        );
        let never = sidecar.client().policy("acme/third").await;
        assert_eq!(never.status, StatusCode::NOT_FOUND, "{message}");
        heir.on(
            SNAPSHOT,
            json_answer(stream(
                3,
                &[
                    ("chat", "{\"weights\":{\"a\":1.0}}"),
                    ("other", "{\"weights\":{\"a\":1.0}}"),
                ],
            )),
        );
        eventually("the problems are gone", || async {
            snapshot_page(&sidecar).await["problem_count"] == 0
        })
        .await;
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_16_what_is_no_json_at_all_is_refused_whole() {
    let (heir, sidecar) = start().await;
    for (document, reason) in [
        ("{\"a\":NaN}", "a line of the snapshot"),
        ("{\"a\":Infinity}", "a line of the snapshot"),
        ("{\"a\":01}", "a line of the snapshot"),
        ("{\"a\":\"\u{1}\"}", "a line of the snapshot"),
        ("{'a':1}", "a line of the snapshot"),
        ("{\"a\":1}},{", "a line of the snapshot"),
        ("{},\"policy\":{\"evil\":1}", "a line of the snapshot"),
        ("{},\"tenant_id\":\"other\"", "a line of the snapshot"),
    ] {
        let say = json_answer(stream(2, &[("chat", document)]));
        refused_whole(&heir, &sidecar, say, reason).await;
    }
    let mut not_utf8 = stream(2, &[("chat", "{\"a\":\"?\"}")]).into_bytes();
    let at = not_utf8.iter().position(|byte| *byte == b'?').unwrap();
    not_utf8[at] = 0xff;
    refused_whole(&heir, &sidecar, bytes("", not_utf8), "a line of the snapshot").await;
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_16_a_single_policy_that_is_not_sound_is_never_served() {
    let heir = Scripted::start().await;
    heir.on("GET /health", json_answer("{}".into()));
    let sidecar = Sidecar::start(&heir.url(), "refresh: {interval_ms: 60000}");
    sidecar.wait_for("live").await;
    for (index, document) in [
        "{\"a\":1,\"a\":2}".to_owned(),
        "{\"a\":1e400}".to_owned(),
        "{\"a\":NaN}".to_owned(),
        "[1]".to_owned(),
        "<html>".to_owned(),
        String::new(),
        format!("{{\"a\":{}{}}}", "[".repeat(100_000), "]".repeat(100_000)),
    ]
    .into_iter()
    .enumerate()
    {
        let path = format!("/api/v1/policies/acme/p{index}");
        heir.on(&format!("GET {path} "), json_answer(document.clone()));
        let answer = sidecar.client().get(&path).await;
        assert_eq!(answer.status, StatusCode::BAD_GATEWAY, "{document:.40}");
        assert_eq!(answer.code(), "heir_error");
        assert!(
            answer.text().contains("the policy is broken: $"),
            "{}",
            answer.text()
        );
        assert_eq!(snapshot_page(&sidecar).await["problem_count"], index + 1);
    }
    let path = "/api/v1/policies/acme/zipped";
    heir.on(
        &format!("GET {path} "),
        Say::Json(200, "content-encoding: gzip\r\n", "{}".into()),
    );
    let answer = sidecar.client().get(path).await;
    assert_eq!(
        (answer.status, answer.code().as_str()),
        (StatusCode::BAD_GATEWAY, "heir_error")
    );
    sidecar.stop().await;
}
