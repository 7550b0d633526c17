//! `beamline-sidecar run`.

use std::{ffi::OsString, path::PathBuf, process::ExitCode, sync::Arc};

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::sync::mpsc;

use super::{
    output::{EXIT_USAGE, print_err},
    signals::{Signals, obeyed_during},
};
use crate::{
    app::{App, ConfigSource, Handover, KEEP_ALIVE, raise_limit},
    config,
    listener::InheritedSockets,
    parent::Parent,
    supervise,
    telemetry::{Logs, chain},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Without a file the defaults are used: listen at 127.0.0.1:8080, HEIR at 127.0.0.1:8090.
Every key can also be set by an environment variable: heir.url is BEAMLINE_HEIR_URL.
SIGHUP or a change of the file reads it again; SIGTERM stops gracefully, a second one immediately.

Examples:
  beamline-sidecar run --config /etc/beamline/sidecar.yaml
  BEAMLINE_HEIR_URL=http://heir.internal:8080 BEAMLINE_LOG_FORMAT=text beamline-sidecar run"
)]
pub(super) struct RunArgs {
    /// The configuration, in YAML; all keys are in docs/configuration.md.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Run below a small process that keeps the sockets, and starts the sidecar again at once if it dies or hangs.
    /// SIGUSR2 replaces a running sidecar by the program as it is now, without a failed request.
    // Taken out before the command line is parsed.
    #[arg(long)]
    supervised: bool,
}

const SUPERVISED: &str = "--supervised";

pub(super) fn run(args: &RunArgs) -> ExitCode {
    let parent = Arc::new(Parent::from_env());
    let handover = Handover {
        parent: parent.clone(),
        sockets: InheritedSockets::from_env(),
    };
    if parent.is_supervisor() {
        // Two sidecars could not listen at the same addresses.
        let _impossible = set_parent_process_death_signal(Some(Signal::TERM));
    }
    let file = args.config.clone();
    // Before anything is read: without handlers SIGHUP ends the process, and a start may take a while.
    obeyed_during(move |signals, reloads| control(file, handover, &signals, reloads))
}

/// Everything but the signals.
fn control(
    file: Option<PathBuf>,
    handover: Handover,
    signals: &Signals,
    reloads: mpsc::Receiver<()>,
) -> ExitCode {
    let source = ConfigSource {
        file,
        environment: config::environment(),
        program: PathBuf::new(),
    };
    let loaded = match source.load() {
        Ok(loaded) => loaded,
        Err(mistakes) => {
            print_err(&mistakes.to_string());
            return ExitCode::from(EXIT_USAGE);
        }
    };
    let logs = match Logs::start(&loaded.config.log) {
        Ok(logs) => logs,
        Err(error) => {
            print_err(&format!("The log cannot be started: {error}"));
            return ExitCode::FAILURE;
        }
    };
    log_panics();
    raise_limit();
    if let Some(cause) = handover.parent.restart_cause() {
        tracing::warn!(
            cause,
            "The worker before this one ended; this one takes its place."
        );
    }
    for warning in &loaded.warnings {
        tracing::warn!(warning, "The configuration is unusual.");
    }
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    runtime.enable_all().thread_keep_alive(KEEP_ALIVE);
    let ended = match runtime.build() {
        Ok(control) => {
            let ended = control.block_on(serve(
                loaded.config,
                source,
                logs.clone(),
                handover,
                (signals, reloads),
            ));
            // A resolver or a disk may still block a thread; nothing waits for it.
            control.shutdown_background();
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

/// Whether this command line wants a supervisor.
pub(super) fn is_supervised(mut arguments: impl Iterator<Item = OsString>) -> bool {
    arguments.next().is_some_and(|command| command == "run")
        && arguments.any(|argument| argument == SUPERVISED)
}

/// Runs this command line below a supervisor. Returns only if there is none.
pub(super) fn supervised() -> ExitCode {
    let arguments = std::env::args_os().skip(1);
    let error = supervise::start(arguments.filter(|argument| argument != SUPERVISED));
    print_err(&format!("The sidecar cannot be supervised: {error}"));
    ExitCode::FAILURE
}

async fn serve(
    config: config::Config,
    source: ConfigSource,
    logs: Logs,
    handover: Handover,
    (signals, reloads): (&Signals, mpsc::Receiver<()>),
) -> ExitCode {
    let app = match App::build(config, source, logs.clone(), handover) {
        Ok(app) => app,
        Err(error) => {
            tracing::error!(error = chain(&error), "The sidecar cannot start.");
            return ExitCode::FAILURE;
        }
    };
    let shutdown = signals.serving(app.longest_stop(), logs);
    let addresses: Vec<String> = app.addresses().iter().map(ToString::to_string).collect();
    let version = env!("CARGO_PKG_VERSION");
    tracing::info!(listen = addresses.join(","), admin = %app.admin_address(), version, "The sidecar listens.");
    app.run(shutdown.clone(), reloads).await;
    if shutdown.at_once.is_cancelled() {
        // The parent process is to know that requests may have been cut off.
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Logs every panic: one ends a connection or a task, and must not go unnoticed.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let what = panic.payload_as_str().unwrap_or("a value that is not text");
        tracing::error!(place, what, "A bug: something panicked.");
    }));
}
