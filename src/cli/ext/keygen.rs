//! `beamline-sidecar ext keygen`.

use std::{
    fs::OpenOptions,
    io::Write,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::Args;
use secrecy::ExposeSecret;

use super::show::{Table, escaped};
use crate::{
    cli::output::{EXIT_USAGE, print, print_err},
    extensions::signing::{KeyKind, SecretKey},
};

#[derive(Debug, Args)]
#[command(
    after_help = "Writes NAME.key, which only this user can read and which is not encrypted: keep it where secrets are kept. NAME.pub is
what a sidecar has in extensions.signatures.keys, and what cosign verifies with. A file that is there already is kept.

Exits 0 if both are written, 64 if not.

Examples:
  beamline-sidecar ext keygen release
  beamline-sidecar ext keygen release --kind ed25519
  cosign import-key-pair --key release.key        for those who sign with cosign"
)]
pub(super) struct KeygenArgs {
    /// The name of the files, without their endings.
    #[arg(value_name = "NAME", default_value = "signing")]
    name: PathBuf,
    /// The kind of key: cosign makes ECDSA over P-256, and verifies both.
    #[arg(long, value_enum, default_value_t = KeyKind::P256)]
    kind: KeyKind,
}

pub(super) fn run(args: &KeygenArgs) -> ExitCode {
    match keygen(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            print_err(&escaped(&reason));
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn keygen(args: &KeygenArgs) -> Result<(), String> {
    let with = |ending: &str| {
        let mut name = args.name.clone().into_os_string();
        name.push(ending);
        PathBuf::from(name)
    };
    let (secret, public) = (with(".key"), with(".pub"));
    if let Some(there) = [&secret, &public].into_iter().find(|file| file.exists()) {
        return Err(format!("{} is there already; it is kept", there.display()));
    }
    let text = SecretKey::generate(args.kind)?;
    let key = SecretKey::from_pem(&text)?.public();
    write(&secret, text.expose_secret(), 0o600)?;
    write(&public, &key.to_pem(), 0o644)?;
    let mut table = Table::default();
    table.row("secret", secret.display().to_string());
    table.row("public", public.display().to_string());
    table.row("key", key.id());
    print(&table.to_string());
    Ok(())
}

fn write(file: &Path, text: &str, mode: u32) -> Result<(), String> {
    let open = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(file);
    open.and_then(|mut file| {
        file.write_all(text.as_bytes())?;
        file.sync_all()
    })
    .map_err(|error| format!("{}: {error}", file.display()))
}
