//! What is known of an artifact of a registry: its manifest. With it, and the module that it names, nothing need be pulled.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    durable_file,
    extensions::{digest::ModuleDigest, oci::ImageManifest},
};

/// The ending of their files, which have the names of the manifests' digests.
const ENDING: &str = "oci";
/// Receipts in memory; of more, all are read anew.
const MAX_IN_MEMORY: usize = 256;
/// A file that is larger is none of ours.
const MAX_FILE_BYTES: u64 = 16 << 20;

/// What was pulled of an artifact, apart from its module.
#[derive(Debug, Clone)]
pub(super) struct Receipt {
    pub(super) artifact: ModuleDigest,
    pub(super) module: ModuleDigest,
    pub(super) module_bytes: u64,
    file: File,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
struct File {
    manifest: String,
}

impl Receipt {
    /// Of a manifest.
    ///
    /// # Errors
    /// When it is of no artifact with a module.
    pub(super) fn of(manifest: &[u8]) -> Result<Self, String> {
        let read = ImageManifest::read(manifest)?;
        let (layer, module) = read.module()?;
        Ok(Self {
            artifact: ModuleDigest::of(manifest),
            module,
            module_bytes: layer.size,
            file: File {
                manifest: String::from_utf8_lossy(manifest).into_owned(),
            },
        })
    }

    fn read(path: &Path) -> Option<Self> {
        let known = fs::metadata(path).ok()?;
        let text = (known.len() <= MAX_FILE_BYTES).then(|| fs::read(path))?.ok()?;
        let file: File = serde_json::from_slice(&text).ok()?;
        Self::of(file.manifest.as_bytes()).ok()
    }
}

/// All receipts, in memory and on disk.
#[derive(Debug)]
pub(super) struct Receipts {
    dir: Option<PathBuf>,
    known: Mutex<HashMap<ModuleDigest, Arc<Receipt>>>,
}

impl Receipts {
    pub(super) fn new(dir: Option<PathBuf>) -> Self {
        Self {
            dir,
            known: Mutex::default(),
        }
    }

    fn known(&self) -> MutexGuard<'_, HashMap<ModuleDigest, Arc<Receipt>>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn path(&self, artifact: &ModuleDigest) -> Option<PathBuf> {
        Some(self.dir.as_ref()?.join(format!("{artifact}.{ENDING}")))
    }

    /// The receipt of an artifact.
    pub(super) fn get(&self, artifact: &ModuleDigest) -> Option<Arc<Receipt>> {
        if let Some(known) = self.known().get(artifact) {
            return Some(known.clone());
        }
        let path = self.path(artifact)?;
        // What does not have the digest in its name was not written by this sidecar; it is pulled anew.
        let receipt = Receipt::read(&path).filter(|receipt| receipt.artifact == *artifact)?;
        Some(self.remember(receipt))
    }

    /// Keeps a receipt.
    pub(super) fn keep(&self, receipt: Receipt) {
        if let Some(path) = self.path(&receipt.artifact)
            && let Err(error) = write(&path, &receipt.file)
        {
            tracing::warn!(%error, path = %path.display(), "The manifest of an artifact was not kept on disk.");
        }
        self.remember(receipt);
    }

    fn remember(&self, receipt: Receipt) -> Arc<Receipt> {
        let receipt = Arc::new(receipt);
        let mut known = self.known();
        if known.len() >= MAX_IN_MEMORY && self.dir.is_some() {
            known.clear();
        }
        known.insert(receipt.artifact, receipt.clone());
        receipt
    }

    /// Whether a file is a receipt, and of which module.
    pub(super) fn module_in(path: &Path) -> Option<ModuleDigest> {
        path.extension().filter(|ending| *ending == ENDING)?;
        Receipt::read(path).map(|receipt| receipt.module)
    }
}

fn write(path: &Path, file: &File) -> io::Result<()> {
    let text = serde_json::to_vec(file)?;
    Ok(durable_file::replace(path, ".new", |file| file.write_all(&text))?)
}
