//! `beamline-sidecar probe`.

use std::{path::PathBuf, process::ExitCode, time::Duration};

use clap::{Args, ValueEnum};

use super::{
    http::exchange,
    output::{EXIT_USAGE, print, print_err},
};
use crate::{config, listener::Address};

#[derive(Debug, Args)]
#[command(
    after_help = "Exits 0 if the answer is 200, and 1 if it is another or there is none.

Examples:
  beamline-sidecar probe ready --config /etc/beamline/sidecar.yaml
  beamline-sidecar probe live --admin 127.0.0.1:9901"
)]
pub(super) struct ProbeArgs {
    /// The probe; `health` is the one of a store.
    what: What,
    /// The address of the admin listener. Unset: the one in the configuration.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "config")]
    admin: Option<Address>,
    /// The sidecar's configuration.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// How long to wait for the answer, in milliseconds.
    #[arg(long, value_name = "MS", default_value_t = 1_000)]
    timeout_ms: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum What {
    Live,
    Ready,
    Health,
}

pub(super) fn run(args: &ProbeArgs) -> ExitCode {
    let address = match &args.admin {
        Some(address) => address.clone(),
        None => match config::load(args.config.as_deref(), &config::environment()) {
            // A checked configuration always has a valid address here.
            Ok(loaded) => match loaded.config.admin.listen.parse() {
                Ok(address) => address,
                Err(_) => return ExitCode::from(EXIT_USAGE),
            },
            Err(mistakes) => {
                print_err(&mistakes.to_string());
                return ExitCode::from(EXIT_USAGE);
            }
        },
    };
    let path = match args.what {
        What::Live => "/live",
        What::Ready => "/ready",
        What::Health => "/health",
    };
    match exchange(
        &address,
        "GET",
        path,
        b"",
        Duration::from_millis(args.timeout_ms.max(1)),
    ) {
        Ok(answer) => {
            print(answer.body.trim());
            if answer.status == 200 {
                ExitCode::SUCCESS
            } else {
                ExitCode::FAILURE
            }
        }
        Err(error) => {
            print_err(&format!("{address} does not answer: {error}"));
            ExitCode::FAILURE
        }
    }
}
