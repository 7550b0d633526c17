//! `compile-extension`: hidden; the sidecar runs it as a process of its own.

use std::process::ExitCode;

use clap::Args;

use super::output::print_err;
use crate::extensions::{Profile, compile_here};

#[derive(Debug, Args)]
pub(super) struct CompileArgs {
    #[arg(long)]
    profile: Profile,
    /// The most memory that this process may use, in bytes.
    #[arg(long)]
    memory_bytes: u64,
    /// The most processor time that this process may use, in seconds.
    #[arg(long)]
    seconds: u64,
    /// The process that started this one, and with which it ends.
    #[arg(long)]
    parent: Option<u32>,
    /// Something more important runs beside it.
    #[arg(long)]
    in_background: bool,
}

pub(super) fn run(args: &CompileArgs) -> ExitCode {
    match compile_here(
        args.profile,
        args.memory_bytes,
        args.seconds,
        args.parent,
        args.in_background,
    ) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&reason);
            ExitCode::FAILURE
        }
    }
}
