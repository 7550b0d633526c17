//! `beamline-sidecar store`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::Args;

use super::{
    output::{EXIT_USAGE, print_err},
    signals::{Signals, obeyed_during},
};
use crate::{
    app::raise_limit,
    listener::Address,
    store::{Level, Store, StoreConfig, StoreError, TlsFiles},
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
    /// Store documents that every sidecar sets aside, as well; to try what sidecars do with them.
    #[arg(long)]
    allow_invalid: bool,
    /// File with the bearer token that clients must send; read again when it changes.
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
    /// Serve HTTPS with this certificate chain (PEM); read again when it changes, as the next two.
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The key of the certificate (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// Admit only clients with a certificate of these authorities (PEM).
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Remove modules that no extension's record has named for so many days; 0 keeps them.
    #[arg(long, value_name = "DAYS", default_value_t = 30)]
    modules_kept_days: u32,
    /// Bytes of bodies in memory at one time; one client may have half of them.
    #[arg(long, value_name = "BYTES", default_value_t = StoreConfig::default().max_buffered_bytes,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1_048_576..))]
    max_buffered_bytes: usize,
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
    let tls = match (&args.tls_cert, &args.tls_key) {
        (Some(cert), Some(key)) => Some(TlsFiles {
            cert: cert.clone(),
            key: key.clone(),
            client_ca: args.tls_client_ca.clone(),
        }),
        _ => None,
    };
    let config = StoreConfig {
        listen: args.listen.clone(),
        database: args.db.clone(),
        level: args.level,
        import: args.import.clone(),
        allow_invalid: args.allow_invalid,
        token_file: args.token_file.clone(),
        tls,
        modules_kept: (args.modules_kept_days > 0)
            .then(|| Duration::from_secs(u64::from(args.modules_kept_days) * 24 * 60 * 60)),
        max_buffered_bytes: args.max_buffered_bytes,
        ..StoreConfig::default()
    };
    obeyed_during(move |signals, _reloads| control(config, &logs, &signals))
}

/// Everything but the signals.
fn control(config: StoreConfig, logs: &Logs, signals: &Signals) -> ExitCode {
    let ended = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => {
            let ended = runtime.block_on(serve(config, logs.clone(), signals));
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

async fn serve(config: StoreConfig, logs: Logs, signals: &Signals) -> ExitCode {
    let (level, longest_stop) = (config.level, config.drain);
    let store = match Store::build(config).await {
        Ok(store) => store,
        Err(error @ (StoreError::Token(_) | StoreError::Tls(_))) => {
            print_err(&error.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
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
    let shutdown = signals.serving(longest_stop, logs);
    tracing::info!(listen = %store.address(), level = level.as_str(), "The store listens.");
    tokio::select! {
        () = store.run(shutdown.gracefully.clone()) => ExitCode::SUCCESS,
        () = shutdown.at_once.cancelled() => ExitCode::FAILURE,
    }
}
