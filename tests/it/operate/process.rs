//! What the admin listener changes in a process and keeps from strangers.

use std::fs;

use http::StatusCode;

use crate::support::{Answer, Client, Ended, Process, QUICK, Say, Scripted, eventually, program};

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
