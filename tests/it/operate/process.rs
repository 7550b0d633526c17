//! What the admin listener changes in a process and keeps from strangers.

use std::fs;

use http::StatusCode;

use crate::support::{Answer, Client, Ended, Process, QUICK, Say, Scripted, eventually, program, raw};

#[tokio::test]
async fn the_log_filter_is_shown_and_changed_while_the_process_runs() {
    let heir = Scripted::start().await;
    heir.on("GET /health", Say::Json(200, "", "{}".into()));
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sidecar.yaml");
    fs::write(
        &file,
        format!("{QUICK}heir: {{url: '{}', health_interval_ms: 100}}", heir.url()),
    )
    .unwrap();
    let process = Process::start(&["run", "--config", file.to_str().unwrap()], &[]);
    let admin = Client::new(process.admin.unwrap());
    let debug_lines = || {
        process
            .log()
            .iter()
            .filter(|line| line.contains("\"level\":\"DEBUG\""))
            .count()
    };
    assert_eq!(admin.get("/admin/log").await.text(), "{\"filter\":\"info\"}");
    assert_eq!(debug_lines(), 0);
    let changed = admin.put("/admin/log", "info,beamline_sidecar=debug\n").await;
    assert_eq!(changed.text(), "{\"filter\":\"info,beamline_sidecar=debug\"}");
    // An answer that is not forwarded is worth a line at this level.
    heir.on("GET /broken", Say::Bytes(Vec::new()));
    let data = Client::new(&process.listen[0]);
    assert_eq!(data.get("/broken").await.status, StatusCode::BAD_GATEWAY);
    eventually("debug lines appear", || async { debug_lines() > 0 }).await;
    for bad in [&b"a=b=c"[..], b"beamline_sidecar=loud", b"\xff"] {
        let refused = admin.put("/admin/log", bad).await;
        assert_eq!(
            (refused.status, refused.code().as_str()),
            (StatusCode::BAD_REQUEST, "invalid_request"),
            "{bad:?}"
        );
    }
    let long = admin.put("/admin/log", "x".repeat(5_000)).await;
    assert_eq!(long.status, StatusCode::BAD_REQUEST);
    assert_eq!(
        admin.get("/admin/log").await.text(),
        "{\"filter\":\"info,beamline_sidecar=debug\"}"
    );
}

/// With this token, or none.
async fn snapshot_with(client: &Client, authorization: Option<&str>) -> Answer {
    let headers: Vec<_> = authorization
        .iter()
        .map(|value| ("authorization", *value))
        .collect();
    client.get_with("/admin/snapshot", &headers).await
}

#[tokio::test]
async fn hostile_41_admin_pages_want_the_token_and_no_page_or_line_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let (token, heir_token) = (folder.path().join("token"), folder.path().join("heir-token"));
    fs::write(&token, "\n").unwrap();
    fs::write(&heir_token, "heir-s3cret\n").unwrap();
    let heir = Scripted::start().await;
    let config = folder.path().join("sidecar.yaml");
    fs::write(
        &config,
        format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0', token_file: {}}}\nheir: {{url: '{}', token_file: {}}}\nlog: {{filter: trace}}",
            token.display(),
            heir.url(),
            heir_token.display(),
        ),
    )
    .unwrap();
    let run = ["run", "--config", config.to_str().unwrap()];
    let refused = Ended::of(program().args(run));
    assert_eq!(refused.code, 64);
    let told = refused.errors;
    assert!(
        told.contains("admin.token_file: ") && told.contains("an empty secret protects nothing"),
        "{told}"
    );

    fs::write(&token, "admin-s3cret\n").unwrap();
    let process = Process::start(&run, &[]);
    let admin = Client::new(process.admin.unwrap());
    for wrong in [
        None,
        Some("Bearer admin-s3cre"),
        Some("admin-s3cret"),
        Some("Basic admin-s3cret"),
        Some("Bearer "),
    ] {
        let answer = snapshot_with(&admin, wrong).await;
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{wrong:?}");
        assert_eq!(
            (answer.code().as_str(), answer.header("www-authenticate")),
            ("unauthorized", "Bearer")
        );
    }
    for open in ["/live", "/metrics"] {
        assert_eq!(admin.get(open).await.status, StatusCode::OK);
    }
    // Paths that do not exist are not revealed to strangers either.
    assert_eq!(admin.get("/admin/nothing").await.status, StatusCode::UNAUTHORIZED);
    let right = snapshot_with(&admin, Some("Bearer admin-s3cret")).await;
    assert_eq!(right.status, StatusCode::OK);
    Client::new(&process.listen[0]).get("/forwarded").await;
    assert!(
        heir.requests()
            .iter()
            .any(|head| head.contains("authorization: Bearer heir-s3cret"))
    );

    fs::write(&token, "admin-s3cret-2\n").unwrap();
    eventually("the new token is taken up", || async {
        snapshot_with(&admin, Some("Bearer admin-s3cret-2")).await.status == StatusCode::OK
    })
    .await;
    assert_eq!(
        snapshot_with(&admin, Some("Bearer admin-s3cret")).await.status,
        StatusCode::UNAUTHORIZED
    );
    fs::write(&token, "").unwrap();
    eventually("an emptied file is told", || async {
        process
            .log()
            .iter()
            .any(|line| line.contains("the old token stays"))
    })
    .await;
    assert_eq!(
        snapshot_with(&admin, Some("Bearer admin-s3cret-2")).await.status,
        StatusCode::OK
    );
    for authorization in [None, Some("Bearer ")] {
        assert_eq!(
            snapshot_with(&admin, authorization).await.status,
            StatusCode::UNAUTHORIZED
        );
    }
    let metrics = admin.get("/metrics").await;
    for text in process
        .log()
        .iter()
        .map(String::as_str)
        .chain([right.text(), metrics.text()])
    {
        assert!(!text.contains("s3cret"), "{text}");
    }
}

/// One request as bytes, with these header lines besides `Host`.
fn bytes_of(method: &str, path: &str, lines: &[Vec<u8>], body: &str) -> Vec<u8> {
    let mut request = format!("{method} {path} HTTP/1.1\r\nhost: localhost\r\n").into_bytes();
    for line in lines {
        request.extend_from_slice(line);
        request.extend_from_slice(b"\r\n");
    }
    let length = body.len();
    request
        .extend_from_slice(format!("connection: close\r\ncontent-length: {length}\r\n\r\n{body}").as_bytes());
    request
}

#[tokio::test]
async fn hostile_42_what_authorization_says_is_in_no_answer_no_log_and_no_metric() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "right").unwrap();
    let heir = Scripted::start().await;
    let config = folder.path().join("sidecar.yaml");
    fs::write(
        &config,
        format!(
            "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0', token_file: {}}}\nheir: {{url: '{}'}}\nlog: {{filter: trace}}",
            token.display(),
            heir.url(),
        ),
    )
    .unwrap();
    let process = Process::start(&["run", "--config", config.to_str().unwrap()], &[]);
    let admin = process.admin.unwrap();
    let header = |value: &[u8]| vec![[b"authorization: ".as_slice(), value].concat()];
    let long = [b"Bearer m4rker".as_slice(), &[b'x'; 6_000]].concat();
    let forms: Vec<Vec<Vec<u8>>> = vec![
        header(b"Bearer m4rker"),
        header(b"bearer m4rker right"),
        header(b"Bearer rightm4rker"),
        header(b"Basic bTRya2VyOm00cmtlcg=="),
        header(b"m4rker"),
        header(b"Bearer ' OR 1=1 --m4rker"),
        header(b"Bearer {\"m4rker\":\"%00%0am4rker\"}"),
        header(b"Bearer \xff\xfem4rker"),
        header(b"Bearer\tm4rker"),
        header(b"Bearer m4\x01rker m4rker"),
        header(b"Bearer right, Bearer m4rker"),
        header(&long),
        [header(b"Bearer right"), header(b"Bearer m4rker")].concat(),
        [header(b"Bearer m4rker"), vec![b" m4rker-folded".to_vec()]].concat(),
        vec![b"authorization : Bearer m4rker".to_vec()],
        vec![b"authorization: Bearer m4rker".to_vec(), vec![b'y'; 70_000]],
    ];
    let mut bodies = String::new();
    for form in &forms {
        for (address, method, path, body) in [
            (admin.to_string(), "GET", "/admin/snapshot", ""),
            (admin.to_string(), "POST", "/admin/refresh", ""),
            (admin.to_string(), "PATCH", "/admin/nothing", ""),
            (admin.to_string(), "PUT", "/admin/log", "a filter that is none"),
            (admin.to_string(), "GET", "/ready", ""),
            (admin.to_string(), "GET", "//admin/snapshot", ""),
            (process.listen[0].clone(), "GET", "/api/v1/policies/acme/chat", ""),
            (process.listen[0].clone(), "GET", "/api/v1/policies/acme", ""),
            (
                process.listen[0].clone(),
                "PUT",
                "/api/v1/policies/acme/chat",
                "{",
            ),
            (
                process.listen[0].clone(),
                "DELETE",
                "/api/v1/policies/a%2Fb/chat",
                "",
            ),
            (process.listen[0].clone(), "POST", "/api/v1/decide", "{"),
            (process.listen[0].clone(), "POST", "/api/v1/results", "[]x"),
            (
                process.listen[0].clone(),
                "POST",
                "/api/v1/policies/dry-run",
                "{}",
            ),
            (process.listen[0].clone(), "GET", "/api/v1/anything/else", ""),
            (process.listen[0].clone(), "PATCH", "//x", ""),
        ] {
            let answer = raw(&address, bytes_of(method, path, form, body)).await;
            // That of a wrong token does not say what was wrong with it.
            if path == "/admin/snapshot" && answer.starts_with("HTTP/1.1 401 ") {
                assert!(answer.contains("send the token of admin.token_file"), "{answer}");
            }
            assert!(
                !answer.starts_with("HTTP/1.1 200 ") || !path.starts_with("/admin/"),
                "{method} {path}: {answer}"
            );
            bodies.push_str(&answer);
        }
    }
    let metrics = Client::new(admin).get("/metrics").await;
    bodies.push_str(metrics.text());
    let log = process.log();
    assert!(log.iter().any(|line| line.contains("An admin request failed.")));
    for text in log.iter().map(String::as_str).chain([bodies.as_str()]) {
        for secret in ["m4rker", "m4\\u0001rker", "bTRya2Vy", "rightm"] {
            assert!(!text.contains(secret), "{secret} is in {text}");
        }
    }
}
