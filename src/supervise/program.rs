//! The supervisor's own program: how a process becomes it, and how it begins.

use std::{
    env,
    ffi::OsString,
    io::{self, Write},
    os::unix::process::CommandExt,
    process::Command,
};

use super::supervisor;

/// The file, which belongs beside the sidecar's.
const NAME: &str = "beamline-sidecar-supervisor";

/// As in sysexits.h.
const EXIT_USAGE: u8 = 64;

const EXIT_FAILURE: u8 = 1;

/// Makes this process, which is the sidecar's program, its own supervisor: with the same id, open sockets and environment.
/// Workers are run with these arguments.
///
/// Returns only if that cannot be done.
pub fn start(arguments: impl IntoIterator<Item = OsString>) -> io::Error {
    let worker = match env::current_exe() {
        Ok(worker) => worker,
        Err(error) => return error,
    };
    let supervisor = worker.with_file_name(NAME);
    let error = Command::new(&supervisor).arg(worker).args(arguments).exec();
    let message = format!(
        "{}: {error}. It is a part of the sidecar and belongs beside its program; without it, leave --supervised out.",
        supervisor.display()
    );
    io::Error::new(error.kind(), message)
}

/// Runs the supervisor, `beamline-sidecar-supervisor PROGRAM ARGUMENTS…`, to the status that it ends with.
pub fn main() -> u8 {
    let mut arguments = env::args_os().skip(1);
    let Some(worker) = arguments.next() else {
        print_err("This is the upper half of `beamline-sidecar run --supervised`, which starts it.");
        return EXIT_USAGE;
    };
    supervisor::run(worker.into(), arguments.collect()).unwrap_or_else(|error| {
        print_err(&format!("The sidecar cannot be supervised: {error}"));
        EXIT_FAILURE
    })
}

fn print_err(text: &str) {
    let _closed_pipe = writeln!(io::stderr(), "{text}");
}
