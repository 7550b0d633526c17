//! `beamline-sidecar demo`: a store and a sidecar as processes of their own, extensions, an outage, and what the Router
//! sees of it.

mod extensions;

use std::{
    fs,
    io::{self, IsTerminal},
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
    time::{Duration, Instant},
};

use clap::Args;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use super::{
    complain,
    http::{Answer, exchange},
    say,
};
use crate::listener::Address;

/// Policies to begin with: tenant, policy, document.
const SAMPLES: [(&str, &str, &str); 3] = [
    (
        "acme",
        "chat",
        include_str!("../../../examples/policies/acme/chat.json"),
    ),
    (
        "acme",
        "summaries",
        include_str!("../../../examples/policies/acme/summaries.json"),
    ),
    (
        "globex",
        "default",
        include_str!("../../../examples/policies/globex/default.json"),
    ),
];

/// Everything happens in seconds here that takes minutes in production.
const CONFIG: &str = "
listen: 127.0.0.1:0
admin: {listen: '127.0.0.1:0'}
heir: {timeout_ms: 1000, health_interval_ms: 500, breaker: {open_ms: 500}}
refresh: {interval_ms: 500, long_poll_timeout_ms: 500, stale_after_ms: 1500}
shutdown: {lame_duck_ms: 0}
";

const DECIDE: &str = "/api/v1/decide";

/// A user's first request, the next one, and one after a provider failed. The policy is `acme/chat`.
const FIRST: &str = r#"{"version":"1","request_id":"r-1","tenant_id":"acme","policy_id":"chat","task":{"type":"chat","payload":{"text":"Good morning"}},"metadata":{"user_id":"ada","detail_level":"verbose"}}"#;
const AGAIN: &str = r#"{"version":"1","request_id":"r-2","tenant_id":"acme","policy_id":"chat","task":{"type":"chat","payload":{"text":"And again"}},"metadata":{"user_id":"ada","detail_level":"verbose"}}"#;
const FAILED: &str = r#"{"version":"1","request_id":"r-3","tenant_id":"acme","policy_id":"chat","task":{"type":"chat","payload":{"text":"And again"}},"metadata":{"current_provider":"openai","status":"timeout","detail_level":"verbose"}}"#;

const PATIENCE: Duration = Duration::from_secs(15);

/// Shows the sidecar at work, in half a minute.
#[derive(Debug, Args)]
pub(super) struct DemoArgs {
    /// Directory with the components pii-guard.wasm and latency-scorer.wasm, to show extensions as well. `make demo`
    /// builds and names it.
    #[arg(long, value_name = "DIR")]
    extensions: Option<PathBuf>,
}

pub(super) fn run(args: &DemoArgs) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            complain(&format!("The runtime cannot be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // Whichever way this ends, the children and the directory go with what is dropped here.
    let shown = runtime.block_on(async {
        tokio::select! {
            shown = show(args.extensions.as_deref()) => shown,
            _ = tokio::signal::ctrl_c() => Err(io::Error::other("interrupted")),
        }
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("The demonstration ended early: {error}"));
            ExitCode::FAILURE
        }
    }
}

async fn show(components: Option<&Path>) -> io::Result<()> {
    let components = components.map(std::path::absolute).transpose()?;
    let folder = tempfile::Builder::new().prefix("beamline-demo").tempdir()?;
    for (tenant, policy, document) in SAMPLES {
        let dir = folder.path().join("policies").join(tenant);
        fs::create_dir_all(&dir)?;
        fs::write(dir.join(format!("{policy}.json")), document)?;
    }
    let path = |name: &str| folder.path().join(name).display().to_string();

    title(
        "1",
        "A policy store (HEIR) with three policies, and a sidecar in front of it",
    );
    let (database, policies) = (path("heir.db"), path("policies"));
    let any_port = [
        "store",
        "--listen",
        "127.0.0.1:0",
        "--db",
        &database,
        "--import",
        &policies,
    ];
    let mut store = Started::new(&any_port, &[]).await?;
    let heir = store.listen.clone();
    fs::write(folder.path().join("sidecar.yaml"), CONFIG)?;
    let (config, state, url) = (path("sidecar.yaml"), path("state"), format!("http://{heir}"));
    let variables = [
        ("BEAMLINE_HEIR_URL", url.as_str()),
        ("BEAMLINE_STATE_DIR", state.as_str()),
    ];
    let mut sidecar = Started::new(&["run", "--config", &config], &variables).await?;
    let admin = sidecar
        .admin
        .clone()
        .ok_or_else(|| io::Error::other("the sidecar names no admin address"))?;
    until(&admin, "/ready", |answer| answer.body.contains("\"live\"")).await?;
    say(&format!(
        "   store    http://{heir}\n   sidecar  http://{}   admin http://{admin}",
        sidecar.listen
    ));

    title(
        "2",
        "The Router looks a policy up; the sidecar answers from memory",
    );
    let lookup = "/api/v1/policies/acme/chat";
    let fresh = ask(&sidecar.listen, "GET", lookup, "").await?;
    print(&sidecar.listen, "GET", lookup, &fresh);

    title(
        "3",
        "The Router asks for a decision instead, twice for one user, and once more after that provider timed out",
    );
    for body in [FIRST, AGAIN, FAILED] {
        let decided = ask(&sidecar.listen, "POST", DECIDE, body).await?;
        print_decision(&sidecar.listen, body, &decided);
    }

    match &components {
        Some(components) => extensions::show(components, &heir, &sidecar.listen, &admin).await?,
        None => say("\n   (Extensions are shown by `make demo`, which builds them.)"),
    }

    title(
        "7",
        "The store is killed (kill -9). The same lookup, once its answer is older than stale_after_ms",
    );
    store.child.kill().await?;
    let stale = until(&sidecar.listen, lookup, |answer| {
        answer.header("x-beamline-freshness") == "stale"
    })
    .await?;
    print(&sidecar.listen, "GET", lookup, &stale);
    say("   The body is the same; the headers say how old it is. Decisions go on as well:");
    print_decision(
        &sidecar.listen,
        AGAIN,
        &ask(&sidecar.listen, "POST", DECIDE, AGAIN).await?,
    );

    title(
        "8",
        "A write while the store is away goes into a durable journal, and is visible at once",
    );
    let written = "/api/v1/policies/acme/translate";
    let queued = ask(&sidecar.listen, "PUT", written, "{\"weights\":{\"openai\":1.0}}").await?;
    print(&sidecar.listen, "PUT", written, &queued);
    print(
        &sidecar.listen,
        "GET",
        written,
        &ask(&sidecar.listen, "GET", written, "").await?,
    );
    print(&admin, "GET", "/ready", &ask(&admin, "GET", "/ready", "").await?);

    title(
        "9",
        "The store is back: the write is made there, and answers are fresh again",
    );
    let address = heir.to_string();
    let same_port = ["store", "--listen", &address, "--db", &database];
    let mut store = Started::new(&same_port, &[]).await?;
    let replayed = until(&heir, written, |answer| answer.status == 200).await?;
    print(&heir, "GET", written, &replayed);
    let again = until(&sidecar.listen, lookup, |answer| {
        answer.header("x-beamline-freshness") == "fresh"
    })
    .await?;
    print(&sidecar.listen, "GET", lookup, &again);

    sidecar.child.kill().await?;
    store.child.kill().await?;
    drop(folder);
    say("\nThat was all of it; nothing is left behind. Next: README.md, or `beamline-sidecar run --help`.");
    Ok(())
}

/// A child that listens. Killed when dropped.
struct Started {
    child: Child,
    listen: Address,
    admin: Option<Address>,
}

impl Started {
    /// Starts this program with other arguments and waits for the line that says where it listens.
    async fn new(arguments: &[&str], variables: &[(&str, &str)]) -> io::Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(arguments)
            .envs(variables.iter().copied())
            .current_dir(Path::new("/"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()?;
        let stderr = child
            .stderr
            .take()
            .ok_or_else(|| io::Error::other("the child has no log"))?;
        let mut lines = BufReader::new(stderr).lines();
        let mut heard = Vec::new();
        while let Ok(Ok(Some(line))) = tokio::time::timeout(PATIENCE, lines.next_line()).await {
            let parsed: Value = serde_json::from_str(&line).unwrap_or_default();
            let address = |name: &str| parsed[name].as_str().and_then(|text| text.parse().ok());
            if let Some(listen) = address("listen") {
                // Read on, so that the child never waits for somebody to read its log.
                tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
                return Ok(Self {
                    child,
                    listen,
                    admin: address("admin"),
                });
            }
            heard.push(line);
        }
        Err(io::Error::other(format!(
            "`{}` did not start: {}",
            arguments.join(" "),
            heard.join("\n")
        )))
    }
}

async fn ask(
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

/// Asks until the answer is the one that is waited for.
async fn until(address: &Address, path: &str, wanted: impl Fn(&Answer) -> bool) -> io::Result<Answer> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match ask(address, "GET", path, "").await {
            Ok(answer) if wanted(&answer) => return Ok(answer),
            _ if Instant::now() > deadline => {
                return Err(io::Error::other(format!(
                    "http://{address}{path} did not become what it should"
                )));
            }
            _ => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

fn title(number: &str, text: &str) {
    let (bold, plain) = if io::stdout().is_terminal() {
        ("\x1b[1m", "\x1b[0m")
    } else {
        ("", "")
    };
    say(&format!("\n{bold}{number}. {text}{plain}"));
}

/// Shows an exchange the way `curl -i` would, without what is the same every time.
fn print(address: &Address, method: &str, path: &str, answer: &Answer) {
    let method = if method == "GET" {
        String::new()
    } else {
        format!("-X {method} -d … ")
    };
    say(&format!("   $ curl -i {method}http://{address}{path}"));
    let (status, headers) = answer.head.split_once("\r\n").unwrap_or((&answer.head, ""));
    say(&format!("   {status}"));
    for header in headers
        .lines()
        .filter(|header| header.starts_with("x-beamline-") || header.starts_with("etag"))
    {
        say(&format!("   {header}"));
    }
    let compact =
        serde_json::from_str::<Value>(&answer.body).map_or_else(|_| answer.body.clone(), |v| v.to_string());
    say(&format!(
        "   {}{}",
        compact.chars().take(100).collect::<String>(),
        if compact.chars().count() > 100 { "…" } else { "" }
    ));
}

/// Shows a decision: what was asked beyond the request's frame, what came, and why.
fn print_decision(address: &Address, asked: &str, answer: &Answer) {
    let asked: Value = serde_json::from_str(asked).unwrap_or_default();
    say(&format!(
        "   $ curl -d '{{…, \"metadata\": {}}}' http://{address}{DECIDE}",
        asked["metadata"]
    ));
    let body: Value = serde_json::from_str(&answer.body).unwrap_or_default();
    let decision = &body["decision"];
    say(&format!(
        "   {} {}   seed {}",
        decision["reason"].as_str().unwrap_or(&answer.head),
        decision["provider_id"],
        decision["explanation"]["evidence"]["seed"],
    ));
    for step in decision["explanation"]["steps"].as_array().into_iter().flatten() {
        say(&format!("     {}", step.as_str().unwrap_or_default()));
    }
}
