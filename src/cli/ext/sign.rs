//! `beamline-sidecar ext sign`.

use std::{fs, path::PathBuf, process::ExitCode};

use clap::{Args, ValueEnum};
use secrecy::SecretString;
use serde_json::json;

use super::{
    record_text::with_member,
    registry::{RegistryArgs, resolve},
    show::{Table, escaped},
    signed::Attached,
    target::Target,
};
use crate::{
    cli::output::{EXIT_USAGE, print, print_err},
    extensions::{
        ModuleDigest,
        oci::{Descriptor, ImageManifest, Reference, media},
        signing::SecretKey,
    },
    plain_file,
};

#[derive(Debug, Args)]
#[command(
    after_help = "Of an artifact in a registry, the signature is put beside it: as a bundle (the format of cosign 3), under the tag that
older versions of cosign look at, or both. `cosign verify --key NAME.pub --insecure-ignore-tlog` takes either.

Of a file or a project, it is a signature over the bytes. It is written into the record as \"signature\", and printed.

Exits 0 if it is signed, 64 if not.

Examples:
  beamline-sidecar ext sign oci://registry.example/guards/my-guard@sha256:… --key release.key
  beamline-sidecar ext sign my-guard --key release.key                    the project's extension.json
  beamline-sidecar ext sign my-guard.wasm --record my-guard.json --key release.key"
)]
pub(super) struct SignArgs {
    /// An artifact (oci://…), a component, or a project that was built.
    #[arg(value_name = "NAME|FILE|DIR")]
    what: String,
    /// The key to sign with: PKCS#8 in PEM, as `ext keygen` writes it.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    /// Of an artifact: how it is signed.
    #[arg(long, value_enum, default_value_t = Format::Bundle)]
    format: Format,
    /// Of a file: the record that the signature is written into; of a project its extension.json.
    #[arg(long, value_name = "FILE")]
    record: Option<PathBuf>,
    #[command(flatten)]
    registry: RegistryArgs,
    /// Print JSON, for machines.
    #[arg(long)]
    json: bool,
}

/// How an artifact is signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Format {
    /// A bundle, format 0.3.
    Bundle,
    /// A payload under the tag sha256-….sig.
    Tag,
    /// Both of them.
    Both,
}

pub(super) fn run(args: &SignArgs) -> ExitCode {
    let signed = read_key(&args.key).and_then(|key| {
        if args.what.starts_with("oci://") {
            sign_artifact(args, &key)
        } else {
            sign_file(args, &key)
        }
    });
    match signed {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&escaped(&reason));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn read_key(file: &std::path::Path) -> Result<SecretKey, String> {
    let named = |reason: String| format!("{}: {reason}", file.display());
    let text = plain_file::read_to_string(file).map_err(|error| named(error.to_string()))?;
    SecretKey::from_pem(&SecretString::from(text)).map_err(named)
}

fn sign_artifact(args: &SignArgs, key: &SecretKey) -> Result<(), String> {
    let name = Reference::parse(&args.what)?;
    let repository = &name.repository;
    let digest = args.registry.run(async |registry| {
        let digest = resolve(registry, &name).await?;
        let text = registry
            .manifest(repository, &format!("sha256:{digest}"))
            .await
            .map_err(|error| format!("{name}: {error}"))?
            .ok_or_else(|| format!("{name}: there is no such artifact"))?;
        ImageManifest::read(&text).map_err(|reason| format!("{name}: {reason}"))?;
        if args.format != Format::Tag {
            let subject = Descriptor::of(media::MANIFEST, &text);
            let bundle = Attached::bundle(subject, &digest, key)?;
            bundle.push(registry, repository, &digest).await?;
        }
        if args.format != Format::Bundle {
            let simple = Attached::simple(registry, repository, &digest, key).await?;
            simple.push(registry, repository, &digest).await?;
        }
        Ok(digest)
    })?;
    show(args, &repository.artifact(digest).to_string(), key, None);
    Ok(())
}

fn sign_file(args: &SignArgs, key: &SecretKey) -> Result<(), String> {
    let target = Target::find(std::path::Path::new(&args.what), args.record.as_deref())?;
    if let Some(stale) = target.stale() {
        print_err(&stale);
    }
    let module = target.read()?;
    let signature = key.sign_module(&module)?;
    if let Some(file) = &target.record {
        let named = |reason: &dyn std::fmt::Display| format!("{}: {reason}", file.display());
        let text = fs::read_to_string(file).map_err(|error| named(&error))?;
        let sha256 = ModuleDigest::of(&module).to_string();
        let signed = with_member(&text, "sha256", &sha256, "module")
            .and_then(|text| with_member(&text, "signature", &signature, "sha256"))
            .ok_or_else(|| named(&"it is no record with a module"))?;
        fs::write(file, signed).map_err(|error| named(&error))?;
    }
    show(args, &target.file.display().to_string(), key, Some(&signature));
    Ok(())
}

fn show(args: &SignArgs, what: &str, key: &SecretKey, signature: Option<&str>) {
    let key = key.public().id();
    if args.json {
        print(&json!({"signed": what, "key": key, "signature": signature}).to_string());
        return;
    }
    let mut table = Table::default();
    table.row("signed", what);
    table.row("key", key);
    if let Some(signature) = signature {
        table.row("signature", signature);
    }
    print(&table.to_string());
}
