//! Fetching modules: from a file, from the private directory of what was fetched before, from HEIR, from a web server, from
//! a registry.

use std::{
    collections::HashMap,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;

use super::{
    receipt::{Receipt, Receipts},
    retry::Cause,
};
use crate::{
    durable_file,
    extensions::{
        config::ExtensionsConfig,
        digest::ModuleDigest,
        manifest::{Module, ModuleSource},
        oci::{Access, Artifact, RegistryClient},
        signing::{Evidence, KeySet, Trust, find_signatures},
        web::{TIMEOUT, Trouble, Web, WebError},
    },
    heir::{Admission, Fetched, HeirCall, HeirClient},
    plain_file,
};

/// Modules that wait in memory to be compiled, where there is no directory to keep them in.
const MAX_HELD: usize = 8;
/// Modules in the private directory; of more, those that nothing names are removed.
const MAX_KEPT: usize = 256;

/// How long a file is waited for, and how long its size. A file system may hang.
const PATIENCE: Duration = Duration::from_secs(10);
const STAT_PATIENCE: Duration = Duration::from_secs(1);

/// Why a module was not fetched.
#[derive(Debug)]
pub(super) struct NotFetched {
    pub(super) reason: String,
    pub(super) cause: Cause,
}

impl From<String> for NotFetched {
    fn from(reason: String) -> Self {
        let cause = Cause::Away;
        Self { reason, cause }
    }
}

impl From<&str> for NotFetched {
    fn from(reason: &str) -> Self {
        reason.to_owned().into()
    }
}

impl From<WebError> for NotFetched {
    fn from(WebError { reason, trouble }: WebError) -> Self {
        let cause = match trouble {
            Trouble::Away => Cause::Away,
            Trouble::WrongContent => Cause::WrongContent,
            Trouble::Lasting => Cause::Lasting,
        };
        Self { reason, cause }
    }
}

#[derive(Debug)]
pub(super) struct Fetcher {
    max_module_bytes: u64,
    access: Access,
    /// Modules that were fetched, by their digests.
    kept: Option<PathBuf>,
    held: Mutex<HashMap<ModuleDigest, Bytes>>,
    receipts: Receipts,
    trust: Arc<Trust>,
    web: Web,
}

impl Fetcher {
    pub(super) fn new(config: &ExtensionsConfig, trust: Arc<Trust>, state: Option<&Path>) -> Self {
        let kept = state.map(|state| state.join("modules"));
        Self {
            max_module_bytes: config.max_module_bytes,
            access: Access::new(&config.registries, &config.module_hosts),
            receipts: Receipts::new(kept.clone()),
            kept,
            held: Mutex::default(),
            trust,
            web: Web::default(),
        }
    }

    /// The bytes of a module, or why they are not available, where this machine knows; `None`: they must be fetched.
    pub(super) fn here(&self, module: &Module, dir: Option<&Path>) -> Option<Result<Vec<u8>, String>> {
        if !self.is_shown(module) {
            return None;
        }
        let digest = match &module.source {
            ModuleSource::File(path) => {
                return Some(match dir {
                    Some(dir) => self.read(dir, path),
                    None => Err("there is no extensions_dir: set it, or put the module into HEIR".into()),
                });
            }
            ModuleSource::Kept(digest) => {
                let kept = self.kept_bytes(digest);
                return Some(kept.ok_or_else(|| "there is no copy of it any more".into()));
            }
            ModuleSource::Heir(_) | ModuleSource::Https(_) | ModuleSource::Oci(_) => {
                self.digest_of(module)?
            }
        };
        if let Some(bytes) = self.held().get(&digest) {
            return Some(Ok(bytes.to_vec()));
        }
        self.kept_bytes(&digest).map(Ok)
    }

    /// How large a module is that need not be fetched; `None`: it must be.
    pub(super) fn size_here(&self, module: &Module, dir: Option<&Path>) -> Option<u64> {
        if !self.is_shown(module) {
            return None;
        }
        let size = |path: PathBuf| {
            let known = plain_file::read_one(&path, STAT_PATIENCE, |path| fs::metadata(path));
            known.ok().map(|known| known.len())
        };
        match &module.source {
            // One that is not there is not fetched either.
            ModuleSource::File(path) => Some(dir.and_then(|dir| size(dir.join(&**path))).unwrap_or(0)),
            ModuleSource::Kept(digest) => Some(size(self.kept_path(digest)?).unwrap_or(0)),
            ModuleSource::Heir(_) | ModuleSource::Https(_) | ModuleSource::Oci(_) => {
                let digest = self.digest_of(module)?;
                let held = self.held().get(&digest).map(|bytes| bytes.len() as u64);
                held.or_else(|| size(self.kept_path(&digest)?))
            }
        }
    }

    /// Whether what is fetched has a place until it is compiled.
    pub(super) fn has_room(&self) -> bool {
        self.kept.is_some() || self.held().len() < MAX_HELD
    }

    /// What was fetched has become a component, or was refused.
    pub(super) fn release(&self, module: &Module) {
        if let Some(digest) = self.digest_of(module) {
            self.held().remove(&digest);
        }
    }

    /// Whether the signatures of an artifact, as they were found, are enough to load it. Where they are not, there may be
    /// others by now.
    fn is_shown(&self, module: &Module) -> bool {
        let ModuleSource::Oci(artifact) = &module.source else {
            return true;
        };
        if module.signature.is_some() || !self.trust.wants_signatures() {
            return true;
        }
        let receipt = self.receipts.get(&artifact.digest);
        receipt.is_none_or(|receipt| {
            receipt.was_looked_at() && self.judge(&receipt, receipt.signatures()).is_ok()
        })
    }

    fn judge(&self, receipt: &Receipt, signatures: &[Evidence]) -> Result<KeySet, String> {
        let signed_by = self.trust.signers(&receipt.artifact, signatures);
        self.trust.judge(signed_by, signatures.len()).map(|()| signed_by)
    }

    /// Who signed a module that is here.
    ///
    /// # Errors
    /// When it must not be loaded.
    pub(super) fn signers(&self, module: &Module, bytes: &[u8]) -> Result<KeySet, String> {
        let mut shown = 0;
        let mut signed_by = match &module.signature {
            Some(signature) => {
                shown += 1;
                self.trust.signers_in_record(bytes, signature)?
            }
            None => KeySet::default(),
        };
        if self.trust.wants_signatures() {
            let receipts = match &module.source {
                ModuleSource::Oci(artifact) => self.receipts.get(&artifact.digest).into_iter().collect(),
                ModuleSource::Kept(digest) => self.receipts.of_module(digest),
                _ => Vec::new(),
            };
            // A receipt is of the artifact that its manifest makes it, and counts for the module that this names.
            let digest = ModuleDigest::of(bytes);
            for receipt in receipts.iter().filter(|receipt| receipt.module == digest) {
                shown += receipt.signatures().len();
                signed_by = signed_by.and(self.trust.signers(&receipt.artifact, receipt.signatures()));
            }
        }
        self.trust.judge(signed_by, shown).map(|()| signed_by)
    }

    /// The digest that a module has which is fetched, as far as it is known: the manifest of an artifact says it.
    fn digest_of(&self, module: &Module) -> Option<ModuleDigest> {
        match &module.source {
            ModuleSource::Oci(artifact) => Some(self.receipts.get(&artifact.digest)?.module),
            _ => module.digest,
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<ModuleDigest, Bytes>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept_path(&self, digest: &ModuleDigest) -> Option<PathBuf> {
        Some(self.kept.as_ref()?.join(format!("{digest}.wasm")))
    }

    fn kept_bytes(&self, digest: &ModuleDigest) -> Option<Vec<u8>> {
        let path = self.kept_path(digest)?;
        let bytes = fs::read(&path).ok()?;
        if ModuleDigest::of(&bytes) == *digest {
            return Some(bytes);
        }
        tracing::error!(path = %path.display(), "A module on disk is not as this sidecar wrote it; it is removed.");
        // It is fetched anew where that can be done.
        let _read_only = fs::remove_file(&path);
        None
    }

    /// Keeps a copy of a module, for the time after a restart. Returns whether there is one.
    pub(super) fn keep_copy(&self, module: &Module, digest: &ModuleDigest, dir: Option<&Path>) -> bool {
        let Some(path) = self.kept_path(digest) else {
            return false;
        };
        if path.exists() {
            return true;
        }
        let Some(Ok(bytes)) = self.here(module, dir) else {
            return false;
        };
        // The file may be another one by now.
        ModuleDigest::of(&bytes) == *digest && self.keep(digest, &bytes)
    }

    fn keep(&self, digest: &ModuleDigest, bytes: &[u8]) -> bool {
        let Some(dir) = &self.kept else { return false };
        match keep(dir, digest, bytes) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%error, %digest, "A module was not kept on disk.");
                false
            }
        }
    }

    /// Removes modules that nothing names, where there are many.
    pub(super) fn sweep(&self, needed: impl Fn(&ModuleDigest) -> bool) {
        let files = self.kept.as_ref().and_then(|dir| fs::read_dir(dir).ok());
        let paths: Vec<PathBuf> = files
            .into_iter()
            .flatten()
            .filter_map(|entry| Some(entry.ok()?.path()))
            .collect();
        if paths.len() <= MAX_KEPT {
            return;
        }
        for path in paths {
            let named = || {
                let stem = path.file_stem()?.to_str()?;
                ModuleDigest::parse(stem)
            };
            let digest = Receipts::module_in(&path).or_else(named);
            if digest.is_some_and(|digest| !needed(&digest)) {
                // It is tried again the next time.
                let _read_only = fs::remove_file(path);
            }
        }
    }

    fn read(&self, dir: &Path, path: &str) -> Result<Vec<u8>, String> {
        let most = self.max_module_bytes;
        // A link may lead anywhere, and then it is the operator who made it lead there; `..` is refused when the
        // record is read. What is no file, a pipe say, might never end, or never begin.
        let read = move |file: &Path| {
            let file = plain_file::open(file)?;
            let size = file.metadata()?.len();
            if size > most {
                return Ok((size, Vec::new()));
            }
            let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
            // It may grow meanwhile.
            file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
            Ok((bytes.len() as u64, bytes))
        };
        let read = plain_file::read_one(&dir.join(path), PATIENCE, read);
        let (size, bytes) = read.map_err(|error| format!("cannot be read: {error}"))?;
        self.check_size(size)?;
        Ok(bytes)
    }

    fn check_size(&self, size: u64) -> Result<(), String> {
        if size > self.max_module_bytes {
            return Err(format!(
                "it has {size} bytes, more than extensions.max_module_bytes ({})",
                self.max_module_bytes
            ));
        }
        Ok(())
    }

    /// Fetches a module that is not here, so that it is.
    pub(super) async fn fetch(&self, module: &Module, heir: Option<&HeirClient>) -> Result<(), NotFetched> {
        let bytes = match &module.source {
            ModuleSource::File(_) | ModuleSource::Kept(_) => return Err("a file is never fetched".into()),
            ModuleSource::Heir(digest) => {
                let heir = heir.ok_or("there is no HEIR to fetch it from")?;
                let path = format!("/api/v1/modules/{digest}");
                let fetched = heir
                    .fetch_once(
                        HeirCall::Module,
                        Admission::Breaker,
                        &path,
                        None,
                        self.max_module_bytes,
                        TIMEOUT,
                    )
                    .await;
                match fetched.map_err(|error| format!("HEIR does not give it: {}", error.chain()))? {
                    Fetched::Changed { body, .. } => body,
                    Fetched::NotModified => return Err("HEIR gave no module".into()),
                }
            }
            ModuleSource::Https(url) => self.get(url).await?,
            ModuleSource::Oci(artifact) => match self.pull(artifact, module).await? {
                Some(bytes) => bytes,
                None => return Ok(()),
            },
        };
        let digest = ModuleDigest::of(&bytes);
        let wanted = module.digest.unwrap_or(digest);
        if wanted != digest {
            return Err(NotFetched {
                reason: wrong_digest(&digest, &wanted),
                cause: Cause::WrongContent,
            });
        }
        if !self.keep(&digest, &bytes) {
            self.held().insert(digest, bytes);
        }
        Ok(())
    }

    async fn get(&self, url: &str) -> Result<Bytes, WebError> {
        let uri: Uri = url
            .parse()
            .map_err(|error| WebError::lasting(format!("not a URL: {error}")))?;
        self.access.allows(uri.host().unwrap_or_default())?;
        let request = Request::get(uri)
            .body(Full::default())
            .map_err(|error| WebError::lasting(format!("not a URL: {error}")))?;
        let answer = self.web.send(request, self.max_module_bytes).await?;
        if !answer.status.is_success() {
            // Redirections are not followed: the host they lead to is not one that the operator allowed.
            return Err(WebError::away(format!("the server answers {}", answer.status)));
        }
        Ok(answer.body)
    }

    /// Pulls what is not here of an artifact; `None`: its module is here.
    async fn pull(&self, artifact: &Artifact, module: &Module) -> Result<Option<Bytes>, NotFetched> {
        let (repository, digest) = (&artifact.repository, &artifact.digest);
        let registry = RegistryClient::new(&self.web, &self.access);
        let receipt = match self.receipts.get(digest) {
            Some(receipt) => receipt,
            None => {
                let manifest = registry.manifest(repository, &format!("sha256:{digest}")).await?;
                let manifest = manifest.ok_or("there is no such artifact in the registry")?;
                Arc::new(Receipt::of(&manifest).map_err(WebError::lasting)?)
            }
        };
        if let Some(pinned) = module.digest.filter(|pinned| *pinned != receipt.module) {
            return Err(WebError::lasting(wrong_digest(&receipt.module, &pinned)).into());
        }
        self.check_size(receipt.module_bytes).map_err(WebError::lasting)?;
        let mut receipt = Receipt::clone(&receipt);
        if self.trust.wants_signatures() {
            let found = find_signatures(&registry, repository, digest).await?;
            if module.signature.is_none() {
                // What must not be loaded is not pulled either. It may be signed later.
                self.judge(&receipt, &found).map_err(WebError::wrong)?;
            }
            receipt = receipt.with_signatures(found);
        }
        let is_here = self.held().contains_key(&receipt.module) || self.kept_bytes(&receipt.module).is_some();
        let bytes = if is_here {
            None
        } else {
            let blob = registry.blob(repository, &receipt.module, self.max_module_bytes);
            Some(blob.await?)
        };
        self.receipts.keep(receipt);
        Ok(bytes)
    }
}

pub(super) fn wrong_digest(digest: &ModuleDigest, wanted: &ModuleDigest) -> String {
    format!("its SHA-256 is {digest}, not {wanted} as the record says")
}

fn keep(dir: &Path, digest: &ModuleDigest, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let path = dir.join(format!("{digest}.wasm"));
    Ok(durable_file::replace(&path, ".new", |file| {
        file.write_all(bytes)
    })?)
}

/// Puts an artifact where a sidecar with this `state_dir` finds it, so that it need not be pulled. Its signatures are verified
/// there.
///
/// # Errors
/// When the manifest is of no artifact with this module, or nothing can be written there.
pub fn keep_artifact(
    state_dir: &Path,
    manifest: &[u8],
    module: &[u8],
    signatures: Vec<Evidence>,
) -> Result<(), String> {
    let receipt = Receipt::of(manifest)?.with_signatures(signatures);
    let digest = ModuleDigest::of(module);
    if receipt.module != digest {
        return Err(wrong_digest(&digest, &receipt.module));
    }
    let dir = state_dir.join("extensions").join("modules");
    keep(&dir, &digest, module).map_err(|error| error.to_string())?;
    receipt.write(&dir).map_err(|error| error.to_string())
}
