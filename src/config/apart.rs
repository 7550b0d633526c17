//! The configuration, read by a process of its own.
//!
//! Reading YAML, making the schema of all keys and checking against it touch some five MiB of the program and of the heap,
//! which would be resident for as long as the sidecar runs. A process of its own gives them back.

use std::{
    io,
    path::Path,
    process::{Command, Stdio},
};

use super::{
    env::Environment,
    load::{Loaded, load},
    mistake::Mistakes,
};
use crate::plain_file;

/// The command that the other process is given; the file follows, where there is one.
pub const COMMAND: &str = "read-config";

/// As [`load`], by another process of this `program`; by this process where none can be started.
pub fn load_apart(
    program: &Path,
    file: Option<&Path>,
    environment: &Environment,
) -> Result<Loaded, Mistakes> {
    // What was handed over can be read only once.
    if file.is_some_and(plain_file::is_handed_over) {
        return load(file, environment);
    }
    ask(program, file, environment).unwrap_or_else(|error| {
        tracing::debug!(%error, "The configuration is read by this process.");
        load(file, environment)
    })
}

fn ask(
    program: &Path,
    file: Option<&Path>,
    environment: &Environment,
) -> io::Result<Result<Loaded, Mistakes>> {
    let asked = Command::new(program)
        .arg(COMMAND)
        .args(file)
        .env_clear()
        .envs(environment)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()?;
    Ok(serde_json::from_slice(&asked.stdout)?)
}

/// What the other process does: reads and checks, and writes what came of it.
pub fn answer(file: Option<&Path>, environment: &Environment, to: impl io::Write) -> io::Result<()> {
    Ok(serde_json::to_writer(to, &load(file, environment))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program that cannot be started, one that fails, and one that writes something else.
    #[test]
    fn without_a_process_of_its_own_the_configuration_is_read_all_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("sidecar.yaml");
        for text in ["log: {format: text}", "log: {format: odd}"] {
            std::fs::write(&file, text).unwrap();
            let here = load(Some(&file), &Environment::new()).map(|loaded| loaded.config);
            for program in ["/nowhere/beamline-sidecar", "false", "echo"] {
                let apart = load_apart(Path::new(program), Some(&file), &Environment::new());
                assert_eq!(apart.map(|loaded| loaded.config), here, "{program}");
            }
        }
    }
}
