//! `beamline-sidecar schema`.

use std::process::ExitCode;

use super::output::print;
use crate::policy;

pub(super) fn run() -> ExitCode {
    print(&format!("{:#}", policy::schema()));
    ExitCode::SUCCESS
}
