//! What is known of an artifact of a registry: its manifest, and the signatures beside it. With these, and the module that
//! the manifest names, nothing need be pulled.

use std::{
    collections::HashMap,
    fs,
    io::{self, Write},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use crate::{
    durable_file,
    extensions::{digest::ModuleDigest, oci::ImageManifest, signing::Evidence},
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
    /// `None`: they were not looked for.
    #[serde(default)]
    signatures: Option<Vec<Evidence>>,
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
                signatures: None,
            },
        })
    }

    fn read(path: &Path) -> Option<Self> {
        let known = fs::metadata(path).ok()?;
        let text = (known.len() <= MAX_FILE_BYTES).then(|| fs::read(path))?.ok()?;
        let file: File = serde_json::from_slice(&text).ok()?;
        let receipt = Self::of(file.manifest.as_bytes()).ok()?;
        Some(Self { file, ..receipt })
    }

    /// Writes it into a directory.
    pub(super) fn write(&self, dir: &Path) -> io::Result<()> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let text = serde_json::to_vec(&self.file)?;
        let path = path(dir, &self.artifact);
        Ok(durable_file::replace(&path, ".new", |file| {
            file.write_all(&text)
        })?)
    }

    /// With these signatures, and no others.
    pub(super) fn with_signatures(mut self, signatures: Vec<Evidence>) -> Self {
        self.file.signatures = Some(signatures);
        self
    }

    /// The signatures that were found. Each time they are used they are verified.
    pub(super) fn signatures(&self) -> &[Evidence] {
        self.file.signatures.as_deref().unwrap_or_default()
    }

    /// Whether signatures were looked for.
    pub(super) fn was_looked_at(&self) -> bool {
        self.file.signatures.is_some()
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

    /// The receipt of an artifact.
    pub(super) fn get(&self, artifact: &ModuleDigest) -> Option<Arc<Receipt>> {
        if let Some(known) = self.known().get(artifact) {
            return Some(known.clone());
        }
        let path = path(self.dir.as_ref()?, artifact);
        // What does not have the digest in its name was not written by this sidecar; it is pulled anew.
        let receipt = Receipt::read(&path).filter(|receipt| receipt.artifact == *artifact)?;
        Some(self.remember(receipt))
    }

    /// Keeps a receipt.
    pub(super) fn keep(&self, receipt: Receipt) {
        if let Some(dir) = &self.dir
            && let Err(error) = receipt.write(dir)
        {
            tracing::warn!(%error, artifact = %receipt.artifact, "The manifest of an artifact was not kept on disk.");
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

    /// The receipts of all artifacts that have this module.
    pub(super) fn of_module(&self, module: &ModuleDigest) -> Vec<Arc<Receipt>> {
        let is_of_it = |receipt: &&Arc<Receipt>| receipt.module == *module;
        let mut found: Vec<Arc<Receipt>> = self.known().values().filter(is_of_it).cloned().collect();
        let files = self.dir.as_ref().and_then(|dir| fs::read_dir(dir).ok());
        for path in files
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
        {
            if path.extension().is_none_or(|ending| ending != ENDING) {
                continue;
            }
            let Some(receipt) = Receipt::read(&path).filter(|receipt| receipt.module == *module) else {
                continue;
            };
            if found.iter().all(|known| known.artifact != receipt.artifact) {
                found.push(Arc::new(receipt));
            }
        }
        found
    }

    /// Whether a file is a receipt, and of which module.
    pub(super) fn module_in(path: &Path) -> Option<ModuleDigest> {
        path.extension().filter(|ending| *ending == ENDING)?;
        Receipt::read(path).map(|receipt| receipt.module)
    }
}

fn path(dir: &Path, artifact: &ModuleDigest) -> PathBuf {
    dir.join(format!("{artifact}.{ENDING}"))
}
