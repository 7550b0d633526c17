//! `read-config`: hidden; the sidecar runs it as a process of its own.

use std::{io, path::PathBuf, process::ExitCode};

use clap::Args;
use rustix::process::{Signal, set_parent_process_death_signal};

use crate::config;

#[derive(Debug, Args)]
pub(super) struct ReadConfigArgs {
    file: Option<PathBuf>,
}

pub(super) fn run(args: &ReadConfigArgs) -> ExitCode {
    // A file system that hangs must not leave this process behind.
    let _impossible = set_parent_process_death_signal(Some(Signal::KILL));
    match config::answer(args.file.as_deref(), &config::environment(), io::stdout().lock()) {
        Ok(()) => ExitCode::SUCCESS,
        // The process that asked is gone, or reads the configuration itself.
        Err(_) => ExitCode::FAILURE,
    }
}
