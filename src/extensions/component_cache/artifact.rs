//! Compiled code on disk. To load it is to run it, so it is loaded only if this sidecar, or one with the same key, wrote
//! it: a keyed digest over the engine's version, the module's digest and the code itself is checked first.

use std::{
    fmt,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    time::SystemTime,
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::{Engine, component::Component};

use super::compile::Compiled;
use crate::{
    durable_file,
    extensions::{
        manifest::ModuleDigest,
        sandbox::{Profile, fingerprint},
    },
};

const TAG_BYTES: usize = 32;
/// A block of SHA-256, which is what HMAC makes of any key.
const KEY_BYTES: usize = 64;
/// Files that are kept: those used last.
const MAX_FILES: usize = 128;

/// The private directory.
pub(super) struct Artifacts {
    dir: PathBuf,
    key: [u8; KEY_BYTES],
}

impl fmt::Debug for Artifacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Artifacts")
            .field("dir", &self.dir)
            .finish_non_exhaustive()
    }
}

/// Code that may be run: this process's own compiler made it, or its keyed digest verified.
pub(super) struct Trusted(Vec<u8>);

impl From<Compiled> for Trusted {
    fn from(Compiled(code): Compiled) -> Self {
        Self(code)
    }
}

impl Trusted {
    /// Makes a component of compiled code.
    #[expect(
        unsafe_code,
        reason = "the one place where compiled code is loaded; the argument is below"
    )]
    pub(super) fn load(&self, engine: &Engine) -> wasmtime::Result<Component> {
        // SAFETY: `deserialize` demands bytes that `Engine::precompile_component` wrote, unchanged. A `Trusted` is made
        // in two places. Either the bytes came through a pipe from a child of this process that runs this program's
        // own compile command, which writes nothing else and was seen to end with success. Or they were read from a
        // file whose HMAC-SHA-256 verifies under a key that was drawn at random by a sidecar with this state
        // directory, is closed to other users (checked when it is read), and tags only code of the first kind; the tag covers the engine's
        // fingerprint and the module's digest, so neither another version's code nor another module's passes.
        // A process that can read the key can already write the memory of this process.
        unsafe { Component::deserialize(engine, &self.0) }
    }
}

impl Artifacts {
    /// Opens the directory, and draws a key where there is none.
    pub(super) fn open(dir: PathBuf) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(&dir)?;
        close_to_others(&dir)?;
        let path = dir.join("key");
        let known = match read_private(&path) {
            Ok(bytes) => bytes.try_into().ok(),
            Err(error) => {
                if error.kind() != io::ErrorKind::NotFound {
                    tracing::warn!(%error, path = %path.display(), "The key of compiled extensions is not used; they are compiled anew.");
                }
                None
            }
        };
        let key = match known {
            Some(key) => key,
            None => {
                let mut key = [0; KEY_BYTES];
                rustls::crypto::ring::default_provider()
                    .secure_random
                    .fill(&mut key)
                    .map_err(|_| io::Error::other("the system gives no random numbers"))?;
                write_private(&path, &[&key])?;
                key
            }
        };
        Ok(Self { dir, key })
    }

    /// The code of a module for an engine, if it is here and as it was written.
    pub(super) fn load(&self, profile: Profile, digest: &ModuleDigest) -> Result<Option<Trusted>, Tampered> {
        let path = self.path(profile, digest);
        let Ok(mut file) = fs::read(&path) else {
            return Ok(None);
        };
        if file.len() < TAG_BYTES {
            return Err(Tampered { path });
        }
        let code = file.split_off(TAG_BYTES);
        match self.mac(profile, digest, &code).verify_slice(&file) {
            Ok(()) => {
                touch(&path);
                Ok(Some(Trusted(code)))
            }
            Err(_) => Err(Tampered { path }),
        }
    }

    /// Writes the code of a module for an engine.
    pub(super) fn keep(&self, profile: Profile, digest: &ModuleDigest, code: &Trusted) -> io::Result<()> {
        let tag = self.mac(profile, digest, &code.0).finalize().into_bytes();
        write_private(&self.path(profile, digest), &[&tag, &code.0])?;
        self.sweep()
    }

    fn path(&self, profile: Profile, digest: &ModuleDigest) -> PathBuf {
        let made_with = hex::encode(&fingerprint(profile)[..8]);
        self.dir.join(format!("{digest}-{made_with}.compiled"))
    }

    fn mac(&self, profile: Profile, digest: &ModuleDigest, code: &[u8]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        mac.update(b"beamline compiled extension 1");
        mac.update(&fingerprint(profile));
        mac.update(digest.as_bytes());
        mac.update(code);
        mac
    }

    /// Removes the files that were used longest ago.
    fn sweep(&self) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.dir)?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let is_ours = path.extension().is_some_and(|extension| extension == "compiled");
                let used = fs::metadata(&path).ok()?.modified().ok()?;
                is_ours.then_some((used, path))
            })
            .collect();
        files.sort_unstable();
        let excess = files.len().saturating_sub(MAX_FILES);
        for (_, path) in files.iter().take(excess) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

/// A file of compiled code that no holder of the key wrote as it is.
#[derive(Debug, thiserror::Error)]
#[error("{} is not as this sidecar wrote it; it is not loaded, and compiled anew", .path.display())]
pub(super) struct Tampered {
    path: PathBuf,
}

fn touch(path: &Path) {
    let now = fs::FileTimes::new().set_modified(SystemTime::now());
    // Only the order of sweeping suffers where the directory is read-only.
    let _read_only = OpenOptions::new()
        .write(true)
        .open(path)
        .and_then(|file| file.set_times(now));
}

/// Permissions of users who are neither the owner nor in its group. The group may have access: Kubernetes gives a volume to
/// the group of the pod.
const OTHERS: u32 = 0o007;

fn close_to_others(dir: &Path) -> io::Result<()> {
    let mode = fs::metadata(dir)?.permissions().mode();
    if mode & OTHERS != 0 {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

/// Reads a file that is this user's, and that others can neither read nor write.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    let known = file.metadata()?;
    let owners = [rustix::process::geteuid().as_raw(), 0];
    if !known.is_file() || !owners.contains(&known.uid()) || known.mode() & OTHERS != 0 {
        return Err(io::Error::other(
            "others than this user could have read or written it",
        ));
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that appears whole or not at all.
fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let write = |file: &mut fs::File| parts.iter().try_for_each(|part| file.write_all(part));
    Ok(durable_file::replace(path, ".new", write)?)
}
