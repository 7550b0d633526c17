//! `beamline-sidecar ext vendor`.

use std::{
    fs, io,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;

use super::{
    sdk::{self, SDK},
    target::{Language, Project},
    template,
};
use crate::cli::output::{EXIT_USAGE, counted, print, print_err};

#[derive(Debug, Args)]
#[command(
    after_help = "They are those of this version of the sidecar: after an upgrade, this brings a project up to date. Nothing else of the
project is touched.

Exits 0 if they are there, 64 if not.

Examples:
  beamline-sidecar ext vendor                     the project in this directory
  beamline-sidecar ext vendor my-guard"
)]
pub(super) struct VendorArgs {
    /// The project.
    #[arg(value_name = "DIR", default_value = ".")]
    dir: PathBuf,
}

pub(super) fn run(args: &VendorArgs) -> ExitCode {
    match vendor(&args.dir) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&reason);
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn vendor(dir: &Path) -> Result<(), String> {
    let project = Project::open(dir)?;
    let (files, place) = match project.language {
        Language::Rust => (sdk::vendored(), "vendor"),
        Language::Js | Language::Python => (template::interface(project.language).collect(), "wit and src"),
    };
    if project.language == Language::Rust {
        // A file that the SDK no longer has must not stay.
        let old = dir.join(SDK);
        remove(&old).map_err(|error| format!("{}: {error}", old.display()))?;
    }
    for (name, text) in &files {
        let path = dir.join(name);
        write(&path, text).map_err(|error| format!("{}: {error}", path.display()))?;
    }
    print(&format!(
        "{} of this version in {}: {place}.",
        counted(files.len(), "file", "files"),
        dir.display()
    ));
    Ok(())
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        result => result,
    }
}

/// Writes a file of a project, in directories that it may be the first in.
pub(super) fn write(path: &Path, text: &str) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(path, text)
}
