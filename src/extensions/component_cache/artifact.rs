//! Compiled code on disk, and which modules were refused. To load code is to run it, so it is loaded only if this sidecar,
//! or one with the same key, wrote it: a keyed digest over the engine's version, the module's digest and the code itself
//! is checked first.

use std::{
    fmt,
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use hmac::{Hmac, KeyInit, Mac};
use sha2::Sha256;
use wasmtime::{Engine, component::Component};

use super::compile::Compiled;
use crate::{
    durable_file,
    extensions::{
        digest::ModuleDigest,
        sandbox::{Profile, fingerprint},
    },
};

const TAG_BYTES: usize = 32;
/// A block of SHA-256, which is what HMAC makes of any key.
const KEY_BYTES: usize = 64;
/// Files of a kind that are kept: those used last.
const MAX_FILES: usize = 128;
/// Names end so.
const COMPILED: &str = "compiled";
const REFUSED: &str = "refused";
/// What a refusal has before its reason: the time and the memory that the compiler had.
const LIMITS_BYTES: usize = 16;

/// What the compiler may use. A refusal says nothing about one that may use more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Allowed {
    pub(super) timeout: Duration,
    pub(super) memory_bytes: u64,
}

impl Allowed {
    fn to_bytes(self) -> [u8; LIMITS_BYTES] {
        let timeout_ms = u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX);
        let mut bytes = [0; LIMITS_BYTES];
        bytes[..8].copy_from_slice(&timeout_ms.to_le_bytes());
        bytes[8..].copy_from_slice(&self.memory_bytes.to_le_bytes());
        bytes
    }

    /// Whether this is no more than what was allowed then.
    fn is_within(self, then: &[u8]) -> bool {
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).unwrap_or(0);
        let now = self.to_bytes();
        now.chunks(8)
            .zip(then.chunks(8))
            .all(|(now, then)| number(now) <= number(then))
    }
}

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
        open_private(&dir)?;
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
        Ok(self.read(COMPILED, profile, digest)?.map(Trusted))
    }

    /// Writes the code of a module for an engine.
    pub(super) fn keep(&self, profile: Profile, digest: &ModuleDigest, code: &Trusted) -> io::Result<()> {
        self.write(COMPILED, profile, digest, &[&code.0])
    }

    /// Why a module was refused that would be refused again.
    pub(super) fn refusal(
        &self,
        profile: Profile,
        digest: &ModuleDigest,
        allowed: Allowed,
    ) -> Result<Option<String>, Tampered> {
        let Some(mut limits) = self.read(REFUSED, profile, digest)? else {
            return Ok(None);
        };
        if limits.len() < LIMITS_BYTES {
            return Ok(None);
        }
        let reason = limits.split_off(LIMITS_BYTES);
        Ok(allowed
            .is_within(&limits)
            .then(|| String::from_utf8_lossy(&reason).into_owned()))
    }

    /// Writes down why a module was refused, so that it costs its compilation once and not at every start.
    pub(super) fn refuse(
        &self,
        profile: Profile,
        digest: &ModuleDigest,
        allowed: Allowed,
        reason: &str,
    ) -> io::Result<()> {
        self.write(
            REFUSED,
            profile,
            digest,
            &[&allowed.to_bytes(), reason.as_bytes()],
        )
    }

    /// Forgets that a module was refused.
    pub(super) fn forgive(&self, digest: &ModuleDigest) {
        for profile in Profile::ALL {
            // Most modules were never refused.
            let _none = fs::remove_file(self.path(REFUSED, profile, digest));
        }
    }

    fn read(&self, kind: &str, profile: Profile, digest: &ModuleDigest) -> Result<Option<Vec<u8>>, Tampered> {
        let path = self.path(kind, profile, digest);
        let Ok(mut file) = fs::read(&path) else {
            return Ok(None);
        };
        if file.len() < TAG_BYTES {
            return Err(Tampered { path });
        }
        let content = file.split_off(TAG_BYTES);
        match self.mac(kind, profile, digest, &[&content]).verify_slice(&file) {
            Ok(()) => {
                touch(&path);
                Ok(Some(content))
            }
            Err(_) => Err(Tampered { path }),
        }
    }

    fn write(&self, kind: &str, profile: Profile, digest: &ModuleDigest, parts: &[&[u8]]) -> io::Result<()> {
        let tag = self.mac(kind, profile, digest, parts).finalize().into_bytes();
        let all: Vec<&[u8]> = std::iter::once(&tag[..]).chain(parts.iter().copied()).collect();
        write_private(&self.path(kind, profile, digest), &all)?;
        self.sweep(kind)
    }

    fn path(&self, kind: &str, profile: Profile, digest: &ModuleDigest) -> PathBuf {
        let made_with = hex::encode(&fingerprint(profile)[..8]);
        self.dir.join(format!("{digest}-{made_with}.{kind}"))
    }

    fn mac(&self, kind: &str, profile: Profile, digest: &ModuleDigest, content: &[&[u8]]) -> Hmac<Sha256> {
        let mut mac = Hmac::<Sha256>::new(&self.key.into());
        // One of each length, so that no content of one kind is one of the other.
        mac.update(match kind {
            COMPILED => b"beamline compiled extension 1".as_slice(),
            _ => b"beamline refused extension 1.",
        });
        mac.update(&fingerprint(profile));
        mac.update(digest.as_bytes());
        for part in content {
            mac.update(part);
        }
        mac
    }

    /// Removes the files that were used longest ago.
    fn sweep(&self, kind: &str) -> io::Result<()> {
        let mut files: Vec<(SystemTime, PathBuf)> = fs::read_dir(&self.dir)?
            .filter_map(|entry| {
                let path = entry.ok()?.path();
                let is_ours = path.extension().is_some_and(|extension| extension == kind);
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
const OTHERS_WRITE: u32 = 0o002;

/// Opens the directory for this user alone, or makes it. One into which others could have put files is begun anew: a key in
/// it may be theirs, and with it code of theirs would be loaded.
fn open_private(dir: &Path) -> io::Result<()> {
    let create = || DirBuilder::new().recursive(true).mode(0o700).create(dir);
    let link = match fs::symlink_metadata(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return create(),
        known => known?,
    };
    let known = fs::metadata(dir)?;
    if is_ours(&link) && is_ours(&known) && known.mode() & OTHERS_WRITE == 0 {
        if known.mode() & OTHERS != 0 {
            fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        }
        return Ok(());
    }
    if link.is_symlink() {
        return Err(io::Error::other(
            "it is a link to a directory that others can write, or that is not this user's",
        ));
    }
    tracing::error!(
        path = %dir.display(),
        "Others could write the directory of compiled extensions: it is begun anew, and they are compiled again."
    );
    fs::remove_dir_all(dir)?;
    create()
}

/// Whether only this user, or root, could have made it.
fn is_ours(known: &fs::Metadata) -> bool {
    [rustix::process::geteuid().as_raw(), 0].contains(&known.uid())
}

/// Reads a file that is this user's, and that others can neither read nor write.
fn read_private(path: &Path) -> io::Result<Vec<u8>> {
    use rustix::fs::OFlags;
    // Nor a link to elsewhere, nor a pipe at which opening it would wait.
    let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits();
    let file = OpenOptions::new()
        .read(true)
        .custom_flags(flags.cast_signed())
        .open(path)?;
    let known = file.metadata()?;
    if !known.is_file() || !is_ours(&known) || known.mode() & OTHERS != 0 {
        return Err(io::Error::other(
            "others than this user could have read or written it",
        ));
    }
    let mut bytes = Vec::new();
    file.take(KEY_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Writes a file that appears whole or not at all, by a temporary file that did not exist before and has a name that no other user
/// can foresee.
fn write_private(path: &Path, parts: &[&[u8]]) -> io::Result<()> {
    let write = |file: &mut fs::File| parts.iter().try_for_each(|part| file.write_all(part));
    Ok(durable_file::replace(path, ".new", write)?)
}
