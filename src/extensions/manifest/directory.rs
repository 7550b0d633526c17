//! The local directory of extensions: one record to a file. Where a file cannot be read any more, its last record stays.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use super::types::{ExtensionRecords, Manifest};
use crate::{extensions::revision::Revision, plain_file, policy::Problem};

/// The largest record.
const MAX_RECORD_BYTES: u64 = 1 << 20;

/// How long one record is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// The directory, and what was last read of it.
#[derive(Debug)]
pub(in crate::extensions) struct ManifestDirectory {
    /// `extensions_dir`; `None`: there is none.
    dir: Option<PathBuf>,
    files: Mutex<Arc<Files>>,
    revision: Revision,
}

/// Records of the local directory.
#[derive(Debug, Default, PartialEq)]
pub(in crate::extensions) struct Files {
    pub(in crate::extensions) records: ExtensionRecords,
    /// What is wrong with the files, by the ids of their records.
    pub(in crate::extensions) problems: BTreeMap<String, Vec<Problem>>,
    /// The file that each record is from, by the record's id.
    from: BTreeMap<String, PathBuf>,
}

impl ManifestDirectory {
    /// A directory of which nothing was read yet.
    pub(in crate::extensions) fn new(dir: Option<&Path>, revision: Revision) -> Self {
        Self {
            dir: dir.map(Path::to_owned),
            files: Mutex::default(),
            revision,
        }
    }

    /// Its path.
    pub(in crate::extensions) fn path(&self) -> Option<&Path> {
        self.dir.as_deref()
    }

    /// Reads the records again. Returns how many there are.
    ///
    /// # Errors
    /// When the directory itself cannot be read; the last records stay.
    pub(in crate::extensions) fn read(&self) -> io::Result<usize> {
        let Some(dir) = &self.dir else { return Ok(0) };
        let files = Files::read(dir, &self.files())?;
        let count = files.records.len();
        let mut known = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        if **known != files {
            *known = Arc::new(files);
            self.revision.advance();
        }
        Ok(count)
    }

    /// The records as they were last read.
    pub(in crate::extensions) fn files(&self) -> Arc<Files> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The enabled extensions of these records and of the directory's, as far as the records are valid.
    pub(in crate::extensions) fn enabled_with<'a>(
        &self,
        records: impl Iterator<Item = &'a str>,
    ) -> Vec<Manifest> {
        let read = |text: &str| {
            let (manifest, _) = Manifest::read(text).ok()?;
            manifest.enabled.then_some(manifest)
        };
        let mut manifests: Vec<Manifest> = records.filter_map(read).collect();
        let files = self.files();
        manifests.extend(files.records.values().filter_map(|text| read(text)));
        manifests
    }
}

impl Files {
    /// Reads the directory. A file that cannot be read keeps the record that it held `before`.
    fn read(dir: &Path, before: &Self) -> io::Result<Self> {
        let mut files = Self::default();
        let mut paths = plain_file::read_one(dir, PATIENCE, |dir| {
            let entries = fs::read_dir(dir)?.map(|entry| entry.map(|entry| entry.path()));
            entries.collect::<io::Result<Vec<PathBuf>>>()
        })?;
        // Kubernetes keeps a mounted ConfigMap's generations under names that begin with a dot.
        let is_record = |path: &PathBuf| {
            let is_json = path.extension().is_some_and(|extension| extension == "json");
            is_json && !name_of(path).starts_with('.')
        };
        paths.retain(is_record);
        paths.sort_unstable();
        for (path, read) in plain_file::read_all(paths, PATIENCE, read_record) {
            // It was taken away since, or a link leads nowhere.
            let is_gone = read.as_ref().err().map(io::Error::kind) == Some(io::ErrorKind::NotFound);
            if !is_gone {
                let name = name_of(&path);
                files.add(before, path, &name, read);
            }
        }
        Ok(files)
    }

    fn id_in(&self, path: &Path) -> Option<&String> {
        let in_it = |(_, from): &(&String, &PathBuf)| *from == path;
        self.from.iter().find(in_it).map(|(id, _)| id)
    }

    fn problem(&mut self, id: String, message: String, remedy: &str) {
        let problem = Problem::error("$", message, remedy);
        self.problems.entry(id).or_default().push(problem);
    }

    /// Adds what was read of a file, or what it held before.
    fn add(&mut self, before: &Self, path: PathBuf, name: &str, read: io::Result<String>) {
        let known = before.id_in(&path);
        let text = match read {
            Ok(text) => text.into(),
            Err(error) => {
                let message = format!("{} cannot be read: {error}", path.display());
                let id = known.map_or(name, String::as_str);
                self.problem(id.to_owned(), message, "put it right");
                let Some(last) = before.records.get(id).filter(|_| known.is_some()) else {
                    return;
                };
                last.clone()
            }
        };
        let named = serde_json::from_str::<serde_json::Value>(&text)
            .ok()
            .and_then(|record| Some(record.get("id")?.as_str()?.to_owned()));
        let id = named.unwrap_or_else(|| known.map_or(name, String::as_str).to_owned());
        if let Some(other) = self.from.get(&id) {
            let message = format!(
                "{} and {} both hold a record {id:?}",
                other.display(),
                path.display()
            );
            self.problem(id.clone(), message, "remove one of them");
            if before.from.get(&id) != Some(&path) {
                return;
            }
        }
        self.records.insert(id.clone(), text);
        self.from.insert(id, path);
    }
}

fn name_of(path: &Path) -> String {
    let stem = path.file_stem().unwrap_or_default();
    stem.to_string_lossy().into_owned()
}

fn read_record(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    let mut file = plain_file::open(path)?.take(MAX_RECORD_BYTES + 1);
    file.read_to_string(&mut text)?;
    if text.len() as u64 > MAX_RECORD_BYTES {
        return Err(io::Error::other(format!(
            "it has more than {MAX_RECORD_BYTES} bytes"
        )));
    }
    Ok(text)
}

/// The records of a directory, by their ids, and what is wrong with its files.
///
/// # Errors
/// When the directory cannot be read.
pub fn read_records(dir: &Path) -> io::Result<(ExtensionRecords, BTreeMap<String, Vec<Problem>>)> {
    let files = Files::read(dir, &Files::default())?;
    Ok((files.records, files.problems))
}
