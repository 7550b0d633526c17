//! Every route of the admin listener, by the list in the OpenAPI document, which is made of the same registration: who is
//! admitted, what is refused, and that each refusal has the error body.
#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests fail the test that called them"
)]

use std::{fs, time::Duration};

use http::{Method, StatusCode};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{Answer, Client, Scripted, Sidecar, raw};

const OPEN: [&str; 3] = ["/live", "/ready", "/metrics"];

/// The paths of the admin listener with ids filled in, and their methods.
async fn routes(admin: &Client, headers: &[(&str, &str)]) -> Vec<(Method, String)> {
    let document = admin.get_with("/admin/openapi.json", headers).await.json();
    let mut routes = Vec::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        if !path.starts_with("/admin/") && !OPEN.contains(&path.as_str()) {
            continue;
        }
        let concrete = path
            .replace("{tenant}", "acme")
            .replace("{policy}", "chat")
            .replace("{provider}", "alpha")
            .replace("{id}", "1");
        assert!(!concrete.contains('{'), "a parameter without an example: {path}");
        for method in item.as_object().unwrap().keys() {
            let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
            routes.push((method, concrete.clone()));
        }
    }
    assert!(routes.len() > 30, "{routes:?}");
    routes
}

/// Whether the answer is a failure of this status and code, in the form of the contracts.
fn failed(answer: &Answer, status: u16, code: &str) -> bool {
    let body = answer.json();
    let keys = |object: &Value| -> Vec<String> {
        let object = object.as_object().into_iter().flatten();
        object.map(|(key, _)| key.clone()).collect()
    };
    (answer.status.as_u16(), answer.code().as_str()) == (status, code)
        && answer.header("content-type") == "application/json"
        && keys(&body) == ["context", "error", "ok"]
        && keys(&body["error"]) == ["code", "details", "message"]
        && (&body["ok"], &body["context"]) == (&json!(false), &json!({}))
}

#[tokio::test]
async fn hostile_41_every_route_but_the_open_ones_wants_the_token() {
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    fs::write(&token, "s3cret").unwrap();
    let sidecar = Sidecar::try_start(&format!(
        "listen: 127.0.0.1:0\nadmin: {{listen: '127.0.0.1:0', token_file: {}}}\nshutdown: {{lame_duck_ms: 0}}\npolicies_dir: {}",
        token.display(),
        folder.path().display(),
    ))
    .unwrap();
    let admin = sidecar.admin();
    let mut open = Vec::new();
    for (method, path) in routes(&admin, &[("authorization", "Bearer s3cret")]).await {
        for headers in [
            &[][..],
            &[("authorization", "Bearer s3cre")],
            &[("authorization", "s3cret")],
        ] {
            let answer = admin.send(method.clone(), &path, headers, "").await.unwrap();
            if answer.status != StatusCode::UNAUTHORIZED {
                open.push(path.clone());
                continue;
            }
            assert!(
                failed(&answer, 401, "unauthorized"),
                "{method} {path}: {}",
                answer.text()
            );
            assert_eq!(answer.header("www-authenticate"), "Bearer", "{method} {path}");
        }
        // A method that the path does not have, and a path below it, tell a stranger nothing either.
        for (method, path) in [
            (Method::PATCH, path.clone()),
            (Method::GET, format!("{path}/more")),
        ] {
            let answer = admin.send(method.clone(), &path, &[], "").await.unwrap();
            assert!(
                failed(&answer, 401, "unauthorized"),
                "{method} {path}: {}",
                answer.text()
            );
        }
    }
    open.sort_unstable();
    open.dedup();
    assert_eq!(open, ["/live", "/metrics", "/ready"]);
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_41_without_a_token_every_route_but_the_open_ones_wants_this_machine_as_host() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    for (method, path) in routes(&sidecar.admin(), &[]).await {
        let asked = format!("{method} {path} HTTP/1.1\r\nhost: rebound.example\r\nconnection: close\r\n\r\n");
        let answer = raw(sidecar.admin, asked).await;
        let refused = answer.starts_with("HTTP/1.1 403 ");
        assert_eq!(
            refused,
            !OPEN.contains(&path.as_str()),
            "{method} {path}: {answer}"
        );
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_parameter_that_a_path_does_not_take_is_refused_and_named() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    let admin = sidecar.admin();
    for (method, path) in routes(&admin, &[]).await {
        let misspelt = admin
            .send(method.clone(), &format!("{path}?tenat=acme"), &[], "")
            .await
            .unwrap();
        if OPEN.contains(&path.as_str()) {
            assert_ne!(misspelt.status, StatusCode::BAD_REQUEST, "{path}");
            continue;
        }
        assert!(
            failed(&misspelt, 400, "invalid_request"),
            "{method} {path}: {}",
            misspelt.text()
        );
        let message = misspelt.json()["error"]["message"].as_str().unwrap().to_owned();
        assert!(
            message.starts_with("unknown parameter \"tenat\": this path takes "),
            "{message}"
        );
    }
    for (method, path, message) in [
        (
            Method::GET,
            "/admin/sticky?limits=1",
            "unknown parameter \"limits\": this path takes tenant, limit",
        ),
        (
            Method::GET,
            "/admin/sticky?tenant=acme&limit=0",
            "limit is 1 to 1000",
        ),
        (
            Method::GET,
            "/admin/sticky?tenant=acme&limit=many",
            "limit is a whole number",
        ),
        (
            Method::GET,
            "/admin/sticky?tenant=acme&tenant=other",
            "the parameter tenant is given more than once",
        ),
        (
            Method::GET,
            "/admin/providers",
            "the parameter tenant is required",
        ),
        (
            Method::GET,
            "/admin/providers?tenant=a%2Fb",
            "tenant has a character outside A-Z a-z 0-9 _ . -",
        ),
        (
            Method::DELETE,
            "/admin/sticky?tenant=acme&session=%ff",
            "session is not UTF-8",
        ),
        (
            Method::DELETE,
            "/admin/rate-limits?scope=all",
            "scope is one of global, tenant, policy",
        ),
        (
            Method::POST,
            "/admin/refresh?confirm=perhaps",
            "confirm is true or false",
        ),
    ] {
        let answer = admin.send(method.clone(), path, &[], "").await.unwrap();
        assert!(
            failed(&answer, 400, "invalid_request"),
            "{method} {path}: {}",
            answer.text()
        );
        assert_eq!(answer.json()["error"]["message"], message, "{method} {path}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn wrong_ids_and_paths_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let policies = [("acme/chat", json!({"weights": {"alpha": 1.0}}))];
    let sidecar = crate::decide::with_policies(dir.path(), &policies, "");
    let admin = sidecar.admin();
    for (method, path, status, code) in [
        (Method::POST, "/admin/writes/x/retry", 400, "invalid_request"),
        (Method::POST, "/admin/writes/-1/discard", 400, "invalid_request"),
        (Method::POST, "/admin/writes/7/discard", 404, "not_found"),
        (Method::POST, "/admin/writes/7/explode", 404, "not_found"),
        (Method::GET, "/admin/policies/acme/none", 404, "not_found"),
        (Method::GET, "/admin/policies/acme/%63hat", 200, ""),
        (Method::GET, "/admin/policies/acme/%2563hat", 404, "not_found"),
        (Method::GET, "/admin/policies/acme/%ff", 400, "invalid_request"),
        (Method::GET, "/admin/extensions/none", 404, "not_found"),
        (Method::POST, "/admin/extensions/none/release", 404, "not_found"),
        (Method::POST, "/admin/extensions/none/lift", 404, "not_found"),
        (
            Method::POST,
            "/admin/providers/acme/none/breaker/close",
            404,
            "not_found",
        ),
        (
            Method::POST,
            "/admin/providers/acme/none/breaker/recover",
            404,
            "not_found",
        ),
        (
            Method::POST,
            "/admin/providers/a%2Fb/alpha/breaker/close",
            400,
            "invalid_request",
        ),
        (
            Method::POST,
            "/admin/providers/acme/openai/gpt-4o/breaker/close",
            404,
            "not_found",
        ),
        (Method::DELETE, "/admin/providers/acme/none/estimate", 200, ""),
        (
            Method::POST,
            "/admin/providers?tenant=acme&provider=alpha&action=recover",
            405,
            "method_not_allowed",
        ),
        (Method::GET, "/admin/snapshot/", 404, "not_found"),
        (Method::GET, "//admin/snapshot", 404, "not_found"),
        (Method::GET, "/%61dmin/snapshot", 404, "not_found"),
    ] {
        let answer = admin.send(method.clone(), path, &[], "").await.unwrap();
        if status == 200 {
            assert_eq!(
                answer.status,
                StatusCode::OK,
                "{method} {path}: {}",
                answer.text()
            );
        } else {
            assert!(
                failed(&answer, status, code),
                "{method} {path}: {} {}",
                answer.status,
                answer.text()
            );
        }
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn a_method_that_a_path_does_not_have_is_answered_with_those_that_it_has() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    let admin = sidecar.admin();
    let all = routes(&admin, &[]).await;
    for (_, path) in &all {
        let answer = admin.send(Method::PATCH, path, &[], "").await.unwrap();
        assert!(
            failed(&answer, 405, "method_not_allowed"),
            "{path}: {}",
            answer.text()
        );
        let allow = answer.header("allow").to_owned();
        assert_eq!(
            answer.json()["error"]["message"],
            format!("this path takes {allow}")
        );
        let mut allowed: Vec<&str> = allow.split(", ").filter(|method| *method != "HEAD").collect();
        allowed.sort_unstable();
        let mut known: Vec<&str> = all
            .iter()
            .filter(|(_, known)| known == path)
            .map(|(method, _)| method.as_str())
            .collect();
        known.sort_unstable();
        assert_eq!(allowed, known, "{path}");
    }
    sidecar.stop().await;
}

#[tokio::test]
async fn head_is_get_without_the_body() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    let admin = sidecar.admin();
    for path in ["/live", "/ready", "/metrics", "/admin/log"] {
        let head = admin.send(Method::HEAD, path, &[], "").await.unwrap();
        let get = admin.get(path).await;
        assert_eq!(head.status, get.status, "{path}");
        assert_eq!(head.header("content-type"), get.header("content-type"), "{path}");
        assert!(
            head.body.is_empty() && !head.header("content-length").is_empty(),
            "{path}"
        );
    }
    // Metrics may have changed in between; this cannot.
    let head = admin.send(Method::HEAD, "/live", &[], "").await.unwrap();
    assert_eq!(
        head.header("content-length"),
        admin.get("/live").await.body.len().to_string()
    );
    sidecar.stop().await;
}

#[tokio::test]
async fn hostile_a_body_that_is_too_large_or_too_slow_is_refused() {
    let heir = Scripted::start().await;
    let sidecar = Sidecar::start(&heir.url(), "");
    let admin = sidecar.admin();
    let long = admin.put("/admin/log", "x".repeat(4_097)).await;
    assert!(failed(&long, 400, "invalid_request"), "{}", long.text());
    // Without a length, it is what has come that counts.
    let chunk = "x".repeat(3_000);
    let chunked = format!(
        "PUT /admin/log HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ntransfer-encoding: chunked\r\n\r\nbb8\r\n{chunk}\r\nbb8\r\n{chunk}\r\n0\r\n\r\n"
    );
    let answer = raw(sidecar.admin, chunked).await;
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("\"invalid_request\""),
        "{answer}"
    );

    let mut slow = TcpStream::connect(sidecar.admin).await.unwrap();
    let head =
        "PUT /admin/log HTTP/1.1\r\nhost: 127.0.0.1\r\nconnection: close\r\ncontent-length: 9\r\n\r\ninf";
    slow.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(30), slow.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    assert!(
        answer.starts_with("HTTP/1.1 400 ") && answer.contains("did not arrive in time"),
        "{answer}"
    );
    assert_eq!(admin.get("/admin/log").await.status, StatusCode::OK);
    sidecar.stop().await;
}

#[tokio::test]
async fn the_old_paths_are_gone() {
    let document: Value = beamline_sidecar::admin::openapi();
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.contains_key("/admin/extensions/{id}/release"));
    assert!(!paths.contains_key("/admin/extensions/{id}/lift"));
    assert!(paths["/admin/providers"].get("post").is_none());
}
