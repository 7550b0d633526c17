//! What could be called, written down: after a restart, a record that is broken by then still has its last good state.

use std::{
    collections::BTreeMap,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Deserialize, Serialize};

use super::{extension::ManifestSource, index::Registry};
use crate::{
    durable_file,
    extensions::{
        digest::ModuleDigest,
        manifest::{Manifest, Module, ModuleSource},
    },
};

/// The name of the file, in the private directory of extensions.
const FILE: &str = "last-good";
const FORMAT: u32 = 1;

/// The file.
#[derive(Debug, Serialize, Deserialize)]
struct Document {
    format: u32,
    extensions: Entries,
}

type Entries = BTreeMap<String, Entry>;

/// An extension as it could be called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    source: ManifestSource,
    record: Arc<str>,
    modules: Vec<KeptModule>,
}

/// A module that the record names, and what it was.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct KeptModule {
    module: String,
    /// The digest that the record says; it may say none of a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pinned: Option<String>,
    sha256: String,
}

/// The last good state of an extension.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) manifest: Manifest,
    pub(super) record: Arc<str>,
    pub(super) source: ManifestSource,
}

/// What could be called, on disk.
#[derive(Debug, Default)]
pub(in crate::extensions) struct KeptRecords {
    /// `None`: nothing is kept.
    file: Option<PathBuf>,
    entries: Mutex<Entries>,
}

impl KeptRecords {
    /// What an earlier run left in this directory, if there is one.
    pub(in crate::extensions) fn open(dir: Option<&Path>) -> Self {
        let file = dir.map(|dir| dir.join(FILE));
        let entries = file.as_deref().map(read).unwrap_or_default();
        Self {
            file,
            entries: Mutex::new(entries),
        }
    }

    fn entries(&self) -> MutexGuard<'_, Entries> {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The last good state of one extension.
    pub(super) fn get(&self, id: &str) -> Option<Kept> {
        let entry = self.entries().get(id)?.clone();
        Some(Kept {
            manifest: entry.manifest(id)?,
            record: entry.record,
            source: entry.source,
        })
    }

    /// Whether there is a last good state of an extension.
    pub(in crate::extensions) fn has(&self, id: &str) -> bool {
        self.entries().contains_key(id)
    }

    /// The last good manifests of these extensions.
    pub(in crate::extensions) fn manifests_of(&self, ids: &[&str]) -> Vec<Manifest> {
        let entries = self.entries();
        ids.iter()
            .filter_map(|id| entries.get(*id)?.manifest(id))
            .collect()
    }

    /// All last good manifests.
    pub(super) fn manifests(&self) -> Vec<Manifest> {
        let entries = self.entries();
        entries
            .iter()
            .filter_map(|(id, entry)| entry.manifest(id))
            .collect()
    }

    /// The modules of all of them.
    pub(in crate::extensions) fn digests(&self) -> Vec<ModuleDigest> {
        let entries = self.entries();
        let modules = entries.values().flat_map(|entry| &entry.modules);
        modules
            .filter_map(|kept| ModuleDigest::parse(&kept.sha256))
            .collect()
    }

    /// Writes down what can be called now. An extension that cannot be called keeps what it had, as long as there is a
    /// record of it; `knows_heir`: whether all records of HEIR are known.
    ///
    /// # Errors
    /// When the file cannot be written; it is tried again the next time.
    pub(in crate::extensions) fn update(
        &self,
        registry: &Registry,
        knows_heir: bool,
        keep_copy: impl Fn(&Module, &ModuleDigest) -> bool,
    ) -> io::Result<()> {
        let Some(file) = &self.file else { return Ok(()) };
        let before = self.entries().clone();
        let is_there = |id: &str, source: ManifestSource| {
            let is_known = registry.get(id).is_some()
                || registry.problems().contains_key(id)
                || registry.disabled().contains_key(id)
                || registry.is_pending(id);
            is_known || (source == ManifestSource::Heir && !knows_heir)
        };
        let mut entries: Entries = before
            .iter()
            .filter(|(id, entry)| is_there(id, entry.source))
            .map(|(id, entry)| (id.clone(), entry.clone()))
            .collect();
        for extension in registry.sorted() {
            let called: Vec<(&Module, &ModuleDigest)> = extension
                .targets()
                .map(|(_, target)| (&target.module, &target.built.digest))
                .collect();
            let is_kept =
                |(module, _): &(&Module, &ModuleDigest)| matches!(module.source, ModuleSource::Kept(_));
            if called.iter().any(is_kept) {
                continue;
            }
            let mut modules: Vec<KeptModule> = called
                .iter()
                .map(|(module, digest)| kept(module, digest))
                .collect();
            modules.sort_unstable();
            modules.dedup();
            let entry = Entry {
                source: extension.source,
                record: extension.record.clone(),
                modules,
            };
            let id: &str = &extension.id;
            if before.get(id) != Some(&entry)
                && called.iter().all(|(module, digest)| keep_copy(module, digest))
            {
                entries.insert(id.to_owned(), entry);
            }
        }
        if entries == before {
            return Ok(());
        }
        write(file, &entries)?;
        *self.entries() = entries;
        Ok(())
    }
}

fn kept(module: &Module, digest: &ModuleDigest) -> KeptModule {
    KeptModule {
        module: module.source.to_string(),
        pinned: module.digest.map(|pinned| pinned.to_string()),
        sha256: digest.to_string(),
    }
}

impl Entry {
    /// The manifest, with the modules that it ran with.
    fn manifest(&self, id: &str) -> Option<Manifest> {
        let (mut manifest, _) = Manifest::read(&self.record).ok()?;
        let copy_of = |module: &Module| {
            let name = module.source.to_string();
            let pinned = module.digest.map(|pinned| pinned.to_string());
            let is_it = |kept: &&KeptModule| kept.module == name && kept.pinned == pinned;
            let digest = ModuleDigest::parse(&self.modules.iter().find(is_it)?.sha256)?;
            Some(Module {
                source: ModuleSource::Kept(digest),
                digest: Some(digest),
                signature: module.signature.clone(),
                is_metered: module.is_metered,
            })
        };
        manifest.exchange_modules(copy_of);
        (*manifest.id == *id).then_some(manifest)
    }
}

fn read(file: &Path) -> Entries {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) => {
            if error.kind() != io::ErrorKind::NotFound {
                tracing::error!(%error, path = %file.display(), "The last good records of extensions cannot be read.");
            }
            return Entries::new();
        }
    };
    match serde_json::from_slice::<Document>(&text) {
        Ok(document) if document.format == FORMAT => document.extensions,
        Ok(document) => {
            tracing::warn!(
                format = document.format,
                "The last good records of extensions are of another version; they are written anew."
            );
            Entries::new()
        }
        Err(error) => {
            tracing::error!(%error, path = %file.display(), "The last good records of extensions are damaged; they are written anew.");
            Entries::new()
        }
    }
}

fn write(file: &Path, entries: &Entries) -> io::Result<()> {
    let document = Document {
        format: FORMAT,
        extensions: entries.clone(),
    };
    let text = serde_json::to_vec(&document)?;
    if let Some(dir) = file.parent() {
        durable_file::create_dir_all(dir)?;
    }
    Ok(durable_file::replace(file, ".new", |file| file.write_all(&text))?)
}
