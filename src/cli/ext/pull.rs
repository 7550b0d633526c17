//! `beamline-sidecar ext pull`.

use std::{
    fs::{File, Permissions},
    io::Write,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::ExitCode,
};

use clap::Args;
use serde_json::json;

use super::{
    registry::{Package, RegistryArgs, resolve},
    show::{Table, bytes, escaped},
};
use crate::{
    cli::output::{EXIT_USAGE, print, print_err},
    durable_file,
    extensions::{ModuleDigest, oci::Reference},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing of it is compiled or run. What a tag names may become another component: the name with the digest, which is
printed, does not.

Exits 0 if it is pulled, 64 if not.

Examples:
  beamline-sidecar ext pull oci://registry.example/guards/my-guard:1.0
  beamline-sidecar ext pull oci://registry.example/guards/my-guard@sha256:… --out extensions/my-guard.wasm"
)]
pub(super) struct PullArgs {
    /// What: oci://HOST/REPOSITORY with a :TAG or @sha256:…
    #[arg(value_name = "NAME")]
    name: Reference,
    /// The file to write [default: the last part of the repository's name, with .wasm].
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &PullArgs) -> ExitCode {
    match pull(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&escaped(&reason));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn pull(args: &PullArgs) -> Result<(), String> {
    let repository = &args.name.repository;
    let package = args.registry.run(async |registry| {
        let digest = resolve(registry, &args.name).await?;
        Package::pull(registry, repository, &digest).await
    })?;
    let module = package
        .module()
        .map_err(|reason| format!("{}: {reason}", args.name))?;
    let last = repository.name().rsplit('/').next().unwrap_or_default();
    let file = args
        .out
        .clone()
        .unwrap_or_else(|| PathBuf::from(format!("{last}.wasm")));
    let write = |to: &mut File| {
        to.set_permissions(Permissions::from_mode(0o644))?;
        to.write_all(module)
    };
    durable_file::replace(&file, ".new", write).map_err(|error| format!("{}: {error}", file.display()))?;
    let name = repository.artifact(package.digest).to_string();
    let sha256 = ModuleDigest::of(module);
    if args.json {
        print(&json!({"module": name, "file": file, "sha256": sha256, "bytes": module.len()}).to_string());
    } else {
        let mut table = Table::default();
        table.row("file", file.display().to_string());
        table.row("module", name);
        table.row("size", bytes(module.len() as u64));
        table.row("sha256", sha256.to_string());
        print(&table.to_string());
    }
    Ok(())
}
