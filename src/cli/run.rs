//! `beamline-sidecar run`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

use super::output::{EXIT_USAGE, print_err};
use crate::{
    app::{App, ConfigSource, Shutdown},
    config,
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
}

pub(super) fn run(args: &RunArgs) -> ExitCode {
    let environment = config::environment();
    let loaded = match config::load(args.config.as_deref(), &environment) {
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
    for warning in &loaded.warnings {
        tracing::warn!(warning, "The configuration is unusual.");
    }
    let source = ConfigSource {
        file: args.config.clone(),
        environment,
        program: std::path::PathBuf::new(),
    };
    match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(control) => control.block_on(serve(loaded.config, source, logs)),
        Err(error) => {
            tracing::error!(%error, "The runtime cannot be started.");
            ExitCode::FAILURE
        }
    }
}

async fn serve(config: config::Config, source: ConfigSource, logs: Logs) -> ExitCode {
    // First of all: without a handler this signal ends the process, and a start may take a while.
    let hangup = match Signals::catch_hangup() {
        Ok(hangup) => hangup,
        Err(error) => return without_signals(&error),
    };
    let app = match App::build(config, source, logs) {
        Ok(app) => app,
        Err(error) => {
            tracing::error!(error = chain(&error), "The sidecar cannot start.");
            return ExitCode::FAILURE;
        }
    };
    let shutdown = Shutdown::default();
    let (reload, reloads) = mpsc::channel(1);
    if let Err(error) = Signals::pass_on(&shutdown, reload, hangup) {
        return without_signals(&error);
    }
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

fn without_signals(error: &std::io::Error) -> ExitCode {
    tracing::error!(%error, "Signals cannot be received.");
    ExitCode::FAILURE
}

/// The signals that control the process.
pub(super) struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
}

impl Signals {
    pub(super) fn catch_hangup() -> std::io::Result<Signal> {
        signal(SignalKind::hangup())
    }

    /// Starts to receive the signals.
    pub(super) fn pass_on(
        shutdown: &Shutdown,
        reload: mpsc::Sender<()>,
        hangup: Signal,
    ) -> std::io::Result<()> {
        let signals = Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup,
        };
        tokio::spawn(signals.receive(shutdown.clone(), reload));
        Ok(())
    }

    /// The first signal to stop is graceful, the second immediate.
    async fn receive(mut self, shutdown: Shutdown, reload: mpsc::Sender<()>) {
        loop {
            let stop = tokio::select! {
                _ = self.terminate.recv() => true,
                _ = self.interrupt.recv() => true,
                _ = self.hangup.recv() => false,
            };
            if !stop {
                // Full: a reload is pending already.
                let _pending = reload.try_send(());
            } else if shutdown.gracefully.is_cancelled() {
                shutdown.at_once.cancel();
            } else {
                shutdown.gracefully.cancel();
            }
        }
    }
}

/// Logs every panic: one ends a connection or a task, and must not go unnoticed.
pub(super) fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic.location().map(ToString::to_string);
        let what = panic.payload_as_str().unwrap_or("a value that is not text");
        tracing::error!(place, what, "A bug: something panicked.");
    }));
}
