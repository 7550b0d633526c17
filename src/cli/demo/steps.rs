//! The steps of the demonstration: requests, and how they and their answers are shown.

use std::{
    io::{self, IsTerminal},
    time::{Duration, Instant},
};

use serde_json::Value;

use crate::{
    cli::{
        http::{Answer, exchange},
        output::print,
    },
    listener::Address,
};

/// Where the Router asks for decisions.
pub(super) const DECIDE: &str = "/api/v1/decide";

/// The longest that a process may take to start, or to reach the state that a step waits for.
pub(super) const TIMEOUT: Duration = Duration::from_secs(15);

pub(super) async fn ask(
    address: &Address,
    method: &'static str,
    path: &str,
    body: impl Into<Vec<u8>>,
) -> io::Result<Answer> {
    let (address, path, body) = (address.clone(), path.to_owned(), body.into());
    tokio::task::spawn_blocking(move || exchange(&address, method, &path, &body, Duration::from_secs(5)))
        .await
        .map_err(io::Error::other)?
}

/// Repeats the request until the answer is as wanted.
pub(super) async fn until(
    address: &Address,
    path: &str,
    wanted: impl Fn(&Answer) -> bool,
) -> io::Result<Answer> {
    let deadline = Instant::now() + TIMEOUT;
    loop {
        match ask(address, "GET", path, "").await {
            Ok(answer) if wanted(&answer) => return Ok(answer),
            _ if Instant::now() > deadline => {
                return Err(io::Error::other(format!(
                    "http://{address}{path} did not reach the expected state"
                )));
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

pub(super) fn title(number: &str, text: &str) {
    let (bold, plain) = if io::stdout().is_terminal() {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    print(&format!("\n{bold}{number}. {text}{plain}"));
}

/// Shows an exchange the way `curl -i` does, without the headers that never vary.
pub(super) fn print_exchange(address: &Address, method: &str, path: &str, answer: &Answer) {
    let method = if method == "GET" {
        String::new()
    } else {
        format!("-X {method} -d … ")
    };
    print(&format!("   $ curl -i {method}http://{address}{path}"));
    let (status, headers) = answer.head.split_once("\r\n").unwrap_or((&answer.head, ""));
    print(&format!("   {status}"));
    for header in headers
        .lines()
        .filter(|header| header.starts_with("x-beamline-") || header.starts_with("etag"))
    {
        print(&format!("   {header}"));
    }
    let compact =
        serde_json::from_str::<Value>(&answer.body).map_or_else(|_| answer.body.clone(), |v| v.to_string());
    print(&format!(
        "   {}{}",
        compact.chars().take(100).collect::<String>(),
        if compact.chars().count() > 100 { "…" } else { "" }
    ));
}

/// Shows a decision: the request's metadata, the answer, and the explanation.
pub(super) fn print_decision(address: &Address, asked: &str, answer: &Answer) {
    let asked: Value = serde_json::from_str(asked).unwrap_or_default();
    print(&format!(
        "   $ curl -d '{{…, \"metadata\": {}}}' http://{address}{DECIDE}",
        asked["metadata"]
    ));
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let decision = &body["decision"];
    print(&format!(
        "   {} {}   seed {}",
        decision["reason"].as_str().unwrap_or(&answer.head),
        decision["provider_id"],
        decision["explanation"]["evidence"]["seed"],
    ));
    for step in decision["explanation"]["steps"].as_array().into_iter().flatten() {
        print(&format!("     {}", step.as_str().unwrap_or_default()));
    }
}
