//! `beamline-sidecar ext copy`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{
    registry::{Package, RegistryArgs, resolve},
    show::{Table, escaped},
    signed::Attached,
};
use crate::{
    cli::output::{EXIT_USAGE, counted, print, print_err},
    extensions::oci::Reference,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Copies an artifact as it is, with the signatures beside it: its digest stays the same, so signatures and records do too.

Exits 0 if it is copied, 64 if not.

Examples:
  beamline-sidecar ext copy oci://registry.example/guards/my-guard:1.0 oci://mirror.example/guards/my-guard:1.0"
)]
pub(super) struct CopyArgs {
    /// What: oci://HOST/REPOSITORY with a :TAG or @sha256:…
    #[arg(value_name = "FROM")]
    from: Reference,
    /// Where to: oci://HOST/REPOSITORY, with a :TAG for people.
    #[arg(value_name = "TO")]
    to: Reference,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &CopyArgs) -> ExitCode {
    match copy(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&escaped(&reason));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn copy(args: &CopyArgs) -> Result<(), String> {
    let (from, to) = (&args.from.repository, &args.to.repository);
    let (package, attached) = args.registry.run(async |registry| {
        let digest = resolve(registry, &args.from).await?;
        if args.to.digest.is_some_and(|wanted| wanted != digest) {
            return Err(format!("{} is sha256:{digest}, not {}", args.from, args.to));
        }
        let package = Package::pull(registry, from, &digest).await?;
        package
            .module()
            .map_err(|reason| format!("{}: {reason}", args.from))?;
        let attached = Attached::pull(registry, from, &digest).await?;
        package.push(registry, to, args.to.tag.as_deref()).await?;
        for one in &attached {
            one.push(registry, to, &digest).await?;
        }
        Ok((package, attached.len()))
    })?;
    let name = to.artifact(package.digest).to_string();
    if args.json {
        print(&json!({"module": name, "tag": args.to.tag, "attached": attached}).to_string());
    } else {
        let mut table = Table::default();
        table.row("copied", args.from.to_string());
        table.row("module", name);
        table.row("with it", counted(attached, "signature", "signatures"));
        print(&table.to_string());
    }
    Ok(())
}
