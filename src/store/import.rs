//! Policies from a directory: `TENANT/POLICY.json`, one document each.

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;

use super::{check::check, db::Db, error::CallError, key::Key, write::Write};
use crate::policy::{PolicyDocument, PolicyId, Problem, TenantId};

/// Policies per transaction: one sync of the disk for each would take minutes for a large directory.
const BATCH: usize = 50;

/// The result of an import.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Import {
    /// Policies that the store did not have.
    pub created: usize,
    /// Policies that the store had with other content.
    pub replaced: usize,
    /// Policies that the store had already, byte for byte.
    pub unchanged: usize,
    /// Files that were not imported, and why.
    pub bad: Vec<BadFile>,
}

/// A file that was not imported.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadFile {
    /// The file.
    pub path: PathBuf,
    /// What is wrong with it; never empty.
    pub problems: Vec<Problem>,
}

/// Why an import was aborted. Bad files do not abort it.
#[derive(Debug, thiserror::Error)]
pub(super) enum ImportError {
    #[error("cannot read the directory")]
    Read(#[from] io::Error),
    #[error("cannot write the policies")]
    Write(#[from] CallError),
    #[error("the reading was cancelled")]
    Ended(#[from] tokio::task::JoinError),
}

/// Writes every valid policy of the directory that differs from the stored one. Nothing is removed from the store.
pub(super) async fn import(
    db: &Arc<Db>,
    directory: &Path,
    max_body_bytes: usize,
    allow_invalid: bool,
) -> Result<Import, ImportError> {
    let mut report = Import::default();
    let files = {
        let directory = directory.to_owned();
        on_a_thread(move || find(&directory)).await?
    };
    let mut found = files.good;
    report.bad = files.bad;
    while !found.is_empty() {
        let rest = found.split_off(found.len().min(BATCH));
        let batch = std::mem::replace(&mut found, rest);
        let read = on_a_thread(move || {
            Ok(batch
                .into_iter()
                .map(|file| load(file, max_body_bytes, allow_invalid))
                .collect::<Vec<_>>())
        });
        let mut good = Vec::new();
        for loaded in read.await? {
            match loaded {
                Ok(loaded) => good.push(loaded),
                Err(bad) => report.bad.push(bad),
            }
        }
        if good.is_empty() {
            continue;
        }
        let written = db.write(move |write| Box::pin(put_all(write, good))).await?;
        report.created += written.created;
        report.replaced += written.replaced;
        report.unchanged += written.unchanged;
    }
    report.bad.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(report)
}

async fn put_all(write: &mut Write, documents: Vec<(Key, PolicyDocument)>) -> Result<Import, CallError> {
    let mut report = Import::default();
    for (key, document) in documents {
        let before = write.version(&key).await?;
        let is_same = before
            .as_ref()
            .is_some_and(|before| before.etag == *document.etag());
        write.put(&key, &document, before.as_ref()).await?;
        match before {
            None => report.created += 1,
            Some(_) if is_same => report.unchanged += 1,
            Some(_) => report.replaced += 1,
        }
    }
    Ok(report)
}

async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ImportError> {
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// A file whose path names a policy.
struct Found {
    path: PathBuf,
    key: Key,
}

#[derive(Default)]
struct Files {
    good: Vec<Found>,
    bad: Vec<BadFile>,
}

impl Files {
    fn refuse(&mut self, path: PathBuf, message: impl Into<String>, remedy: &str) {
        self.bad.push(bad(path, message, remedy));
    }
}

fn bad(path: PathBuf, message: impl Into<String>, remedy: &str) -> BadFile {
    BadFile {
        path,
        problems: vec![Problem::error("$", message, remedy)],
    }
}

fn find(directory: &Path) -> io::Result<Files> {
    let mut files = Files::default();
    for entry in entries(directory)? {
        if !entry.is_dir() {
            files.refuse(
                entry,
                "the file is not in a tenant's directory",
                "move it to TENANT/POLICY.json",
            );
            continue;
        }
        let name = entry
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        let tenant = match TenantId::parse(name) {
            Ok(tenant) => tenant,
            Err(why) => {
                let message = format!("the tenant id in the directory's name {why}");
                files.refuse(entry, message, "rename the directory");
                continue;
            }
        };
        for file in entries(&entry)? {
            let stem = file
                .file_name()
                .and_then(|name| name.to_str()?.strip_suffix(".json"))
                .filter(|_| !file.is_dir());
            match stem.map(PolicyId::parse) {
                Some(Ok(policy)) => files.good.push(Found {
                    key: Key::Policy {
                        tenant: tenant.clone(),
                        policy,
                    },
                    path: file,
                }),
                Some(Err(why)) => {
                    let message = format!("the policy id in the file's name {why}");
                    files.refuse(file, message, "rename the file");
                }
                None => files.refuse(file, "not a .json file", "move it to TENANT/POLICY.json"),
            }
        }
    }
    Ok(files)
}

/// The entries of a directory, sorted. Names that begin with two dots hold the versions of a mounted ConfigMap in
/// Kubernetes; the same files are there again under their own names.
fn entries(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if !entry.file_name().as_encoded_bytes().starts_with(b"..") {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

fn load(file: Found, max_body_bytes: usize, allow_invalid: bool) -> Result<(Key, PolicyDocument), BadFile> {
    let Found { path, key } = file;
    let is_large = |size: u64| size > max_body_bytes as u64;
    let bytes = match fs::metadata(&path) {
        Ok(metadata) if is_large(metadata.len()) => {
            return Err(bad(
                path,
                format!("the file is larger than {max_body_bytes} bytes"),
                "make it smaller or raise the limit",
            ));
        }
        Ok(_) => fs::read(&path),
        Err(error) => Err(error),
    };
    let bytes = match bytes {
        Ok(bytes) => Bytes::from(bytes),
        Err(error) => {
            let message = format!("the file cannot be read: {error}");
            return Err(bad(path, message, "check its permissions"));
        }
    };
    match check(&key, bytes, allow_invalid) {
        Ok(document) => Ok((key, document)),
        Err(problems) => Err(BadFile { path, problems }),
    }
}
