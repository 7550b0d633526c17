//! `beamline-sidecar demo`: a store and a sidecar as separate processes, extensions, an outage, and what the Router
//! sees of it.

mod extensions;
mod steps;

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::{ExitCode, Stdio},
};

use clap::Args;
use serde_json::Value;
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
};

use self::steps::{DECIDE, TIMEOUT, ask, print_decision, print_exchange, title, until};
use super::output::{print, print_err};
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

/// Short intervals: what takes minutes in production happens in seconds here.
const CONFIG: &str = "
listen: 127.0.0.1:0
admin: {listen: '127.0.0.1:0'}
heir: {timeout_ms: 1000, health_interval_ms: 500, breaker: {open_ms: 500}}
refresh: {interval_ms: 500, long_poll_timeout_ms: 500, stale_after_ms: 1500}
shutdown: {lame_duck_ms: 0}
";

/// A user's first request, the next one, and one after a provider failed. The policy is `acme/chat`.
const FIRST: &str = r#"{"version":"1","request_id":"r-1","tenant_id":"acme","policy_id":"chat","task":{"type":"chat","payload":{"text":"Good morning"}},"metadata":{"user_id":"ada","detail_level":"verbose"}}"#;
const AGAIN: &str = r#"{"version":"1","request_id":"r-2","tenant_id":"acme","policy_id":"chat","task":{"type":"chat","payload":{"text":"And again"}},"metadata":{"user_id":"ada","detail_level":"verbose"}}"#;
const FAILED: &str = r#"{"version":"1","request_id":"r-3","tenant_id":"acme","policy_id":"chat","task":{"type":"chat","payload":{"text":"And again"}},"metadata":{"current_provider":"openai","status":"timeout","detail_level":"verbose"}}"#;

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
            print_err(&format!("The runtime cannot be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    // However this ends, dropping it stops the children and removes the directory.
    let shown = runtime.block_on(async {
        tokio::select! {
            shown = show(args.extensions.as_deref()) => shown,
            _ = tokio::signal::ctrl_c() => Err(io::Error::other("interrupted")),
        }
    });
    match shown {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            print_err(&format!("The demonstration ended early: {error}"));
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
    print(&format!(
        "   store    http://{heir}\n   sidecar  http://{}   admin http://{admin}",
        sidecar.listen
    ));

    title(
        "2",
        "The Router looks a policy up; the sidecar answers from memory",
    );
    let lookup = "/api/v1/policies/acme/chat";
    let fresh = ask(&sidecar.listen, "GET", lookup, "").await?;
    print_exchange(&sidecar.listen, "GET", lookup, &fresh);

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
        None => print("\n   (Extensions are shown by `make demo`, which builds them.)"),
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
    print_exchange(&sidecar.listen, "GET", lookup, &stale);
    print("   The body is the same; the headers say how old it is. Decisions go on as well:");
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
    print_exchange(&sidecar.listen, "PUT", written, &queued);
    print_exchange(
        &sidecar.listen,
        "GET",
        written,
        &ask(&sidecar.listen, "GET", written, "").await?,
    );
    print_exchange(&admin, "GET", "/ready", &ask(&admin, "GET", "/ready", "").await?);

    title(
        "9",
        "The store is back: the write is made there, and answers are fresh again",
    );
    let address = heir.to_string();
    let same_port = ["store", "--listen", &address, "--db", &database];
    let mut store = Started::new(&same_port, &[]).await?;
    let replayed = until(&heir, written, |answer| answer.status == 200).await?;
    print_exchange(&heir, "GET", written, &replayed);
    let again = until(&sidecar.listen, lookup, |answer| {
        answer.header("x-beamline-freshness") == "fresh"
    })
    .await?;
    print_exchange(&sidecar.listen, "GET", lookup, &again);

    sidecar.child.kill().await?;
    store.child.kill().await?;
    drop(folder);
    print("\nThat was all of it; nothing is left behind. Next: README.md, or `beamline-sidecar run --help`.");
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
        while let Ok(Ok(Some(line))) = tokio::time::timeout(TIMEOUT, lines.next_line()).await {
            let parsed: Value = serde_json::from_str(&line).unwrap_or_default();
            let address = |name: &str| parsed[name].as_str().and_then(|text| text.parse().ok());
            if let Some(listen) = address("listen") {
                // Go on reading, so that a full pipe never blocks the child.
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
