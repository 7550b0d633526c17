//! `beamline-sidecar schema`.

use std::process::ExitCode;

use super::say;
use crate::policy;

pub(super) fn run() -> ExitCode {
    say(&format!("{:#}", policy::schema()));
    ExitCode::SUCCESS
}
