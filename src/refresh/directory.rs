//! Policies of a local directory, `TENANT/POLICY.json`, for what HEIR does not have.
//!
//! The directory is read whole after every change. Whatever is wrong with a file is reported under its name and
//! leaves the last good version of that policy in place.

use std::{
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use hashbrown::HashMap;

use super::extensions::{ASKING, SHORT};
use crate::{
    plain_file,
    policy::{PolicyDocument, PolicyId, Problem, TenantId},
    snapshot::{Key, Policy, SnapshotStore},
};

/// How long one file is waited for.
const PATIENCE: Duration = Duration::from_secs(1);

/// A file that could not be taken.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct BadFile {
    /// The file, or a directory whose name is no tenant's.
    pub path: PathBuf,
    /// What is wrong with it.
    pub problems: Vec<Problem>,
}

/// The policies of a directory.
#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
    policy_bytes: usize,
    /// What could not be taken the last time.
    bad: Mutex<Vec<BadFile>>,
}

impl Directory {
    /// The policies below this path; `policy_bytes` is the longest document.
    pub fn new(path: &Path, policy_bytes: usize) -> Self {
        Self {
            path: path.to_owned(),
            policy_bytes,
            bad: Mutex::default(),
        }
    }

    /// What could not be taken the last time.
    pub fn bad_files(&self) -> Vec<BadFile> {
        self.bad.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The path of the directory.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads every policy. Names that begin with a dot are passed over: Kubernetes keeps a mounted ConfigMap's
    /// generations under such names.
    pub fn read(&self) -> io::Result<(HashMap<Key, PolicyDocument>, Vec<BadFile>)> {
        let (mut policies, mut bad) = (HashMap::new(), Vec::new());
        for tenant_dir in plain_file::read_one(&self.path, PATIENCE, sorted)? {
            if !tenant_dir.is_dir() {
                continue;
            }
            let tenant = match TenantId::parse(&name(&tenant_dir)) {
                Ok(tenant) => tenant,
                Err(error) => {
                    let problem = Problem::error(
                        "$",
                        format!("the directory's name {error}"),
                        "name it after a tenant",
                    );
                    bad.push(BadFile {
                        path: tenant_dir,
                        problems: vec![problem],
                    });
                    continue;
                }
            };
            let mut files = plain_file::read_one(&tenant_dir, PATIENCE, sorted)?;
            files.retain(|file| file.extension().is_some_and(|extension| extension == "json"));
            let most = self.policy_bytes;
            for (file, read) in plain_file::read_all(files, PATIENCE, move |file| read_bytes(file, most)) {
                // It was taken away since, or a link leads nowhere.
                if read.as_ref().err().map(io::Error::kind) == Some(io::ErrorKind::NotFound) {
                    continue;
                }
                match self.policy_of(&file, read) {
                    Ok((id, document)) => {
                        policies.insert((tenant.clone(), id), document);
                    }
                    Err(problems) => bad.push(BadFile { path: file, problems }),
                }
            }
        }
        Ok((policies, bad))
    }

    fn policy_of(
        &self,
        file: &Path,
        read: io::Result<Vec<u8>>,
    ) -> Result<(PolicyId, PolicyDocument), Vec<Problem>> {
        let stem = file.file_stem().unwrap_or_default().to_string_lossy();
        let id = PolicyId::parse(&stem).map_err(|error| {
            vec![Problem::error(
                "$",
                format!("the file's name {error}"),
                "name it after the policy",
            )]
        })?;
        let bytes = read.map_err(|error| match error.kind() {
            io::ErrorKind::FileTooLarge => vec![Problem::error(
                "$",
                format!(
                    "the file has {error}, more than limits.max_body_bytes ({})",
                    self.policy_bytes
                ),
                "shorten the policy, or raise the limit",
            )],
            _ => vec![Problem::error(
                "$",
                format!("cannot be read: {error}"),
                "check its permissions",
            )],
        })?;
        PolicyDocument::parse(Bytes::from(bytes)).map(|document| (id, document))
    }

    /// Reads the directory into the snapshot and reports what is wrong with it. The number of policies.
    pub fn load_into(&self, store: &SnapshotStore) -> io::Result<usize> {
        let (policies, bad) = self.read()?;
        let count = policies.len();
        let before = std::mem::replace(
            &mut *self.bad.lock().unwrap_or_else(PoisonError::into_inner),
            bad.clone(),
        );
        for BadFile { path, problems } in bad.iter().filter(|file| !before.contains(file)) {
            let text: Vec<String> = problems.iter().map(ToString::to_string).collect();
            tracing::warn!(path = %path.display(), problems = text.join("; "), "A policy file is broken.");
        }
        let base = store.load_full();
        let mut files: HashMap<Key, Arc<Policy>> = HashMap::with_capacity(count);
        for (key, document) in policies {
            let known = base.file(key.0.as_str(), key.1.as_str());
            let policy = match known {
                Some(known) if known.document == document => known.clone(),
                _ => Arc::new(Policy::new(document, None)),
            };
            files.insert(key, policy);
        }
        for key in bad.iter().filter_map(|bad| key_of(&bad.path)) {
            if let Some(known) = base.file(key.0.as_str(), key.1.as_str()) {
                files.insert(key, known.clone());
            }
        }
        store.set_files(files);
        // Most answer at once: then the policies are judged before anything is decided by them.
        store.ask_extensions(ASKING, SHORT);
        Ok(count)
    }
}

/// The bytes of a file, if they are no more than so many.
fn read_bytes(file: &Path, most: usize) -> io::Result<Vec<u8>> {
    let file = plain_file::open(file)?;
    let size = file.metadata()?.len();
    if size > most as u64 {
        let message = format!("{size} bytes");
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
    }
    let mut bytes = Vec::new();
    // It may grow meanwhile; then it is no whole document.
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn key_of(file: &Path) -> Option<Key> {
    let tenant = TenantId::parse(&name(file.parent()?)).ok()?;
    let id = PolicyId::parse(&file.file_stem()?.to_string_lossy()).ok()?;
    Some((tenant, id))
}

fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn sorted(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if !name(&path).starts_with('.') {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}
