//! The program: everything is in the library, so that tests and examples can use it.

use std::process::ExitCode;

/// Serving barely allocates; building a snapshot does, and is several times faster with this one.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    beamline_sidecar::cli::main()
}
