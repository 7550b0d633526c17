//! `beamline-sidecar ext save` and `ext load`: artifacts for places that reach no registry.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    archive::Archive,
    registry::{Package, RegistryArgs, resolve},
    show::{Table, escaped},
    signed::Attached,
};
use crate::{
    cli::output::{EXIT_USAGE, counted, print, print_err},
    extensions::{keep_artifact, oci::Reference, signing::Evidence},
};

#[derive(Debug, Args)]
#[command(
    after_help = "The file is an OCI image layout in a tar archive, with the signatures beside the artifact: `ext load` reads it, and so do
other tools (`skopeo inspect --raw oci-archive:FILE:TAG`).

Exits 0 if it is written, 64 if not.

Examples:
  beamline-sidecar ext save oci://registry.example/guards/my-guard@sha256:… --out my-guard.tar"
)]
pub(super) struct SaveArgs {
    /// What: oci://HOST/REPOSITORY with a :TAG or @sha256:…
    #[arg(value_name = "NAME")]
    name: Reference,
    /// The file to write.
    #[arg(long, short, value_name = "FILE")]
    out: PathBuf,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Into a registry, or into the directory that a sidecar has as state_dir: what its records name by oci://…@sha256:… is
there then, from whichever registry the name says, and no registry is asked. Everything is checked against its digest;
signatures are checked by the sidecar.

Exits 0 if it is loaded, 64 if not.

Examples:
  beamline-sidecar ext load my-guard.tar --to oci://mirror.example/guards/my-guard:1.0
  beamline-sidecar ext load my-guard.tar --state /var/lib/beamline"
)]
pub(super) struct LoadArgs {
    /// The file, as `ext save` writes it.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The repository that it is put into: oci://HOST/REPOSITORY, with a :TAG for people.
    #[arg(long, value_name = "NAME", required_unless_present = "state")]
    to: Option<Reference>,
    /// The directory that the sidecar has as state_dir.
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run_save(args: &SaveArgs) -> ExitCode {
    ended(save(args))
}

pub(super) fn run_load(args: &LoadArgs) -> ExitCode {
    ended(load(args))
}

fn ended(result: Result<(), String>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&escaped(&reason));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn save(args: &SaveArgs) -> Result<(), String> {
    let repository = &args.name.repository;
    let archive = args.registry.run(async |registry| {
        let digest = resolve(registry, &args.name).await?;
        let package = Package::pull(registry, repository, &digest).await?;
        package
            .module()
            .map_err(|reason| format!("{}: {reason}", args.name))?;
        let attached = Attached::pull(registry, repository, &digest).await?;
        Ok(Archive { package, attached })
    })?;
    archive.write(&args.out, args.name.tag.as_deref())?;
    let name = repository.artifact(archive.package.digest).to_string();
    let attached = archive.attached.len();
    if args.json {
        print(&json!({"module": name, "file": args.out, "attached": attached}).to_string());
    } else {
        let mut table = Table::default();
        table.row("file", args.out.display().to_string());
        table.row("module", name);
        table.row("with it", counted(attached, "signature", "signatures"));
        print(&table.to_string());
    }
    Ok(())
}

fn load(args: &LoadArgs) -> Result<(), String> {
    let archive = Archive::read(&args.file)?;
    let digest = archive.package.digest;
    if let Some(to) = &args.to {
        if to.digest.is_some_and(|wanted| wanted != digest) {
            return Err(format!("{} holds sha256:{digest}, not {to}", args.file.display()));
        }
        args.registry.run(async |registry| {
            let (package, repository) = (&archive.package, &to.repository);
            package.push(registry, repository, to.tag.as_deref()).await?;
            for attached in &archive.attached {
                attached.push(registry, repository, &digest).await?;
            }
            Ok(())
        })?;
    }
    if let Some(state) = &args.state {
        let module = archive.package.module()?;
        keep_artifact(state, &archive.package.manifest, module, evidence(&archive))
            .map_err(|error| format!("{}: {error}", state.display()))?;
    }
    let module = match &args.to {
        Some(to) => to.repository.artifact(digest).to_string(),
        None => format!("oci://…@sha256:{digest}"),
    };
    let attached = archive.attached.len();
    if args.json {
        let digest = format!("sha256:{digest}");
        print(&json!({"digest": digest, "state": args.state, "attached": attached}).to_string());
    } else {
        let mut table = Table::default();
        table.row("loaded", args.file.display().to_string());
        table.row("module", module);
        table.row("with it", counted(attached, "signature", "signatures"));
        print(&table.to_string());
    }
    Ok(())
}

/// The signatures in an archive.
fn evidence(archive: &Archive) -> Vec<Evidence> {
    let mut found = Vec::new();
    for attached in &archive.attached {
        found.extend(attached.evidence());
    }
    found
}
