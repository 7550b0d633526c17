//! `beamline-sidecar store`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use secrecy::SecretString;

use super::{
    output::{EXIT_USAGE, print_err},
    signals::Signals,
};
use crate::{
    app::raise_limit,
    listener::Address,
    store::{Level, Store, StoreConfig},
    telemetry::{LogConfig, LogFormat, Logs, chain},
};

#[derive(Debug, Args)]
#[command(after_help = "Examples:
  beamline-sidecar store --db heir.db --import examples/policies
  beamline-sidecar store --db :memory: --listen 127.0.0.1:8090
  beamline-sidecar store --db postgres://heir@db.internal/heir --token-file /run/secrets/heir
  curl -X PUT --data @policy.json http://127.0.0.1:8090/api/v1/policies/acme/chat")]
pub(super) struct StoreArgs {
    /// Where to listen: IP:PORT or unix:/absolute/path.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:8090")]
    listen: Address,
    /// A file for SQLite, `:memory:`, or the URL of a Postgres database.
    #[arg(long, value_name = "FILE|:memory:|URL", default_value = "heir.db")]
    db: String,
    /// How much of the API is served; the lower levels stand for simpler HEIRs, which a sidecar supports too.
    #[arg(long, value_enum, default_value_t)]
    level: Level,
    /// A directory of TENANT/POLICY.json to import at the start.
    #[arg(long, value_name = "DIR")]
    import: Option<PathBuf>,
    /// File with the bearer token that clients must send.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// `json` for machines, `text` for people.
    #[arg(long, default_value = "json", value_parser = ["json", "text"])]
    log_format: String,
}

pub(super) fn run(args: &StoreArgs) -> ExitCode {
    let format = if args.log_format == "text" {
        LogFormat::Text
    } else {
        LogFormat::Json
    };
    let logs = match Logs::start(&LogConfig {
        format,
        ..LogConfig::default()
    }) {
        Ok(logs) => logs,
        Err(error) => {
            print_err(&format!("The log cannot be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    super::run::log_panics();
    raise_limit();
    let token = match args.token_file.as_deref().map(read_token).transpose() {
        Ok(token) => token,
        Err(reason) => {
            print_err(&reason);
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let config = StoreConfig {
        listen: args.listen.clone(),
        database: args.db.clone(),
        level: args.level,
        import: args.import.clone(),
        token,
        ..StoreConfig::default()
    };
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(serve(config, logs.clone()));
            // A database or a disk may still block a thread; nothing waits for it.
            runtime.shutdown_background();
            ended
        }
        Err(error) => {
            tracing::error!(%error, "The runtime cannot be started.");
            ExitCode::FAILURE
        }
    };
    logs.finish();
    ended
}

fn read_token(file: &std::path::Path) -> Result<SecretString, String> {
    let token = std::fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
    match token.trim() {
        "" => Err(format!(
            "{} is empty: an empty token protects nothing",
            file.display()
        )),
        token => Ok(SecretString::from(token)),
    }
}

async fn serve(config: StoreConfig, logs: Logs) -> ExitCode {
    let (signals, _reloads) = match Signals::receive(logs) {
        Ok(received) => received,
        Err(error) => {
            tracing::error!(%error, "Signals cannot be received.");
            return ExitCode::FAILURE;
        }
    };
    let (level, longest_stop) = (config.level, config.drain);
    let store = match Store::build(config).await {
        Ok(store) => store,
        Err(error) => {
            tracing::error!(error = chain(&error), "The store cannot start.");
            return ExitCode::FAILURE;
        }
    };
    if let Some(import) = store.import() {
        for bad in &import.bad {
            let problems: Vec<String> = bad.problems.iter().map(ToString::to_string).collect();
            tracing::error!(path = %bad.path.display(), problems = problems.join("; "), "A policy was not imported.");
        }
        let (created, replaced, unchanged) = (import.created, import.replaced, import.unchanged);
        tracing::info!(
            created,
            replaced,
            unchanged,
            bad = import.bad.len(),
            "Policies were imported."
        );
    }
    let shutdown = signals.serving(longest_stop);
    tracing::info!(listen = %store.address(), level = level.as_str(), "The store listens.");
    tokio::select! {
        () = store.run(shutdown.gracefully.clone()) => ExitCode::SUCCESS,
        () = shutdown.at_once.cancelled() => ExitCode::FAILURE,
    }
}
