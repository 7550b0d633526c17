//! `beamline-sidecar ext verify`.

use std::{path::PathBuf, process::ExitCode};

use clap::Args;
use serde_json::json;

use super::{
    registry::{RegistryArgs, resolve},
    show::{Table, escaped, listed},
    target::Target,
};
use crate::{
    cli::output::{EXIT_USAGE, counted, print, print_err},
    extensions::{
        oci::Reference,
        signing::{PublicKey, find_signatures, read_keys},
    },
};

#[derive(Debug, Args)]
#[command(
    after_help = "Says whether one of the keys signed it, as a sidecar with these keys does. Of an artifact in a registry the signatures of
cosign count, bundles and those under a tag; of a file or a project, the \"signature\" of its record.

Exits 0 if one of the keys signed it, 1 if none did, 64 if that cannot be said.

Examples:
  beamline-sidecar ext verify oci://registry.example/guards/my-guard@sha256:… --key cosign.pub
  beamline-sidecar ext verify my-guard --key release.pub"
)]
pub(super) struct VerifyArgs {
    /// An artifact (oci://…), a component, or a project that was built.
    #[arg(value_name = "NAME|FILE|DIR")]
    what: String,
    /// A public key that counts: a file in PEM.
    #[arg(long, value_name = "FILE", required = true)]
    key: Vec<String>,
    /// Of a file: the record with the signature; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// What was found.
struct Verified {
    what: String,
    /// Signatures that there are, by whomever.
    signatures: usize,
    /// The keys that signed it.
    signers: Vec<String>,
}

pub(super) fn run(args: &VerifyArgs) -> ExitCode {
    let verified = read_keys(&args.key).and_then(|keys| {
        if args.what.starts_with("oci://") {
            verify_artifact(args, &keys)
        } else {
            verify_file(args, &keys)
        }
    });
    match verified {
        Ok(verified) => show(args, &verified),
        Err(reason) => {
            print_err(&escaped(&reason));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn verify_artifact(args: &VerifyArgs, keys: &[PublicKey]) -> Result<Verified, String> {
    let name = Reference::parse(&args.what)?;
    let (digest, found) = args.registry.run(async |registry| {
        let digest = resolve(registry, &name).await?;
        let found = find_signatures(registry, &name.repository, &digest)
            .await
            .map_err(|error| format!("{name}: {error}"))?;
        Ok((digest, found))
    })?;
    let signed = |key: &&PublicKey| found.iter().any(|evidence| evidence.is_by(key, &digest));
    Ok(Verified {
        what: name.repository.artifact(digest).to_string(),
        signatures: found.len(),
        signers: keys.iter().filter(signed).map(PublicKey::id).collect(),
    })
}

fn verify_file(args: &VerifyArgs, keys: &[PublicKey]) -> Result<Verified, String> {
    use base64::{Engine, prelude::BASE64_STANDARD};
    let target = Target::find(std::path::Path::new(&args.what), args.record.as_deref())?;
    let module = target.read()?;
    let manifest = target
        .manifest()?
        .ok_or("there is no record, which is where the signature of a file stands: name it with --record")?;
    let signature = manifest.base.module.and_then(|module| module.signature);
    let bytes = signature
        .as_ref()
        .and_then(|text| BASE64_STANDARD.decode(&**text).ok());
    let signed = |key: &&PublicKey| bytes.as_ref().is_some_and(|bytes| key.verifies(&module, bytes));
    Ok(Verified {
        what: target.file.display().to_string(),
        signatures: usize::from(signature.is_some()),
        signers: keys.iter().filter(signed).map(PublicKey::id).collect(),
    })
}

fn show(args: &VerifyArgs, verified: &Verified) -> ExitCode {
    let ok = !verified.signers.is_empty();
    if args.json {
        print(
            &json!({
                "ok": ok,
                "module": verified.what,
                "signatures": verified.signatures,
                "signed_by": verified.signers,
            })
            .to_string(),
        );
    } else {
        let mut table = Table::default();
        table.row("module", verified.what.as_str());
        table.row(
            "signatures",
            counted(verified.signatures, "signature", "signatures"),
        );
        table.row("signed by", listed(verified.signers.iter().map(String::as_str)));
        print(&table.to_string());
        if !ok {
            print_err("none of the keys signed it");
        }
    }
    if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
