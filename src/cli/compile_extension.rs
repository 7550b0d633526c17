//! `compile-extension`: hidden, the sidecar calls it.

use std::process::ExitCode;

use clap::Args;

use super::output::print_err;
use crate::extensions::{Profile, compile_here};

#[derive(Debug, Args)]
pub(super) struct CompileArgs {
    #[arg(long)]
    profile: Profile,
    /// Memory of this process.
    #[arg(long)]
    memory_bytes: u64,
    /// Processor time of this process.
    #[arg(long)]
    seconds: u64,
}

pub(super) fn run(args: &CompileArgs) -> ExitCode {
    match compile_here(args.profile, args.memory_bytes, args.seconds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&reason);
            ExitCode::FAILURE
        }
    }
}
