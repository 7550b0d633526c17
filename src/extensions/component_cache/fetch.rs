//! Fetching modules: from a file, from the private directory of what was fetched before, from HEIR, from a web server.

use std::{
    collections::HashMap,
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::{Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

use super::retry::Cause;
use crate::{
    durable_file,
    extensions::{
        config::ExtensionsConfig,
        manifest::{Module, ModuleDigest, ModuleSource},
    },
    heir::{Admission, Fetched, HeirCall, HeirClient, TlsConfig, client_config},
};

/// What fetching one module may take.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Modules that wait in memory to be compiled, where there is no directory to keep them in.
const MAX_HELD: usize = 8;
/// Modules in the private directory; of more, those that nothing names are removed.
const MAX_KEPT: usize = 256;

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

type Https = Client<hyper_rustls::HttpsConnector<HttpConnector>, Empty<Bytes>>;

#[derive(Debug)]
pub(super) struct Fetcher {
    max_module_bytes: u64,
    hosts: Vec<String>,
    /// Modules that were fetched, by their digests.
    kept: Option<PathBuf>,
    held: Mutex<HashMap<ModuleDigest, Bytes>>,
    https: OnceLock<Result<Https, String>>,
}

impl Fetcher {
    pub(super) fn new(config: &ExtensionsConfig, state: Option<&Path>) -> Self {
        Self {
            max_module_bytes: config.max_module_bytes,
            hosts: config.module_hosts.clone(),
            kept: state.map(|state| state.join("modules")),
            held: Mutex::default(),
            https: OnceLock::new(),
        }
    }

    /// The bytes of a module, or why they are not available, where this machine knows; `None`: they must be fetched.
    pub(super) fn here(&self, module: &Module, dir: Option<&Path>) -> Option<Result<Vec<u8>, String>> {
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
            ModuleSource::Heir(_) | ModuleSource::Https(_) => module.digest?,
        };
        if let Some(bytes) = self.held().get(&digest) {
            return Some(Ok(bytes.to_vec()));
        }
        self.kept_bytes(&digest).map(Ok)
    }

    /// How large a module is that need not be fetched; `None`: it must be.
    pub(super) fn size_here(&self, module: &Module, dir: Option<&Path>) -> Option<u64> {
        let size = |path: PathBuf| fs::metadata(path).ok().map(|known| known.len());
        match &module.source {
            // One that is not there is not fetched either.
            ModuleSource::File(path) => Some(dir.and_then(|dir| size(dir.join(&**path))).unwrap_or(0)),
            ModuleSource::Kept(digest) => Some(size(self.kept_path(digest)?).unwrap_or(0)),
            ModuleSource::Heir(_) | ModuleSource::Https(_) => {
                let digest = module.digest?;
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
        if let Some(digest) = &module.digest {
            self.held().remove(digest);
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
            let digest = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(ModuleDigest::parse);
            if digest.is_some_and(|digest| !needed(&digest)) {
                // It is tried again the next time.
                let _read_only = fs::remove_file(path);
            }
        }
    }

    fn read(&self, dir: &Path, path: &str) -> Result<Vec<u8>, String> {
        let file = dir.join(path);
        let unreadable = |error: io::Error| format!("cannot be read: {error}");
        // A link may lead anywhere, and then it is the operator who made it lead there; `..` is refused when the
        // record is read. What is no file, a pipe say, might never end, or never begin.
        let known = fs::metadata(&file).map_err(unreadable)?;
        if !known.is_file() {
            return Err("it is not a file".into());
        }
        self.check_size(known.len())?;
        let mut bytes = Vec::with_capacity(usize::try_from(known.len()).unwrap_or(0));
        // It may have been exchanged, or grow meanwhile.
        fs::File::open(&file)
            .and_then(|file| {
                file.take(self.max_module_bytes.saturating_add(1))
                    .read_to_end(&mut bytes)
            })
            .map_err(unreadable)?;
        self.check_size(bytes.len() as u64)?;
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

    async fn get(&self, url: &str) -> Result<Bytes, NotFetched> {
        let uri: Uri = url.parse().map_err(|error| NotFetched {
            reason: format!("not a URL: {error}"),
            cause: Cause::Lasting,
        })?;
        let host = uri.host().unwrap_or_default();
        if !self.hosts.iter().any(|allowed| allowed == host) {
            return Err(NotFetched {
                reason: format!(
                    "{host} is not one of extensions.module_hosts: add it, if modules may come from there"
                ),
                cause: Cause::Lasting,
            });
        }
        let client = self
            .https
            .get_or_init(https_client)
            .as_ref()
            .map_err(Clone::clone)?;
        let request = Request::get(uri)
            .header(header::USER_AGENT, "beamline-sidecar")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        let response = timeout(TIMEOUT, client.request(request))
            .await
            .map_err(|_elapsed| format!("no answer within {} s", TIMEOUT.as_secs()))?
            .map_err(|error| format!("cannot be fetched: {error}"))?;
        if !response.status().is_success() {
            // Redirections are not followed: the host they lead to is not one that the operator allowed.
            return Err(format!("the server answers {}", response.status()).into());
        }
        let max_bytes = usize::try_from(self.max_module_bytes).unwrap_or(usize::MAX);
        let body = timeout(TIMEOUT, Limited::new(response.into_body(), max_bytes).collect())
            .await
            .map_err(|_elapsed| format!("not whole within {} s", TIMEOUT.as_secs()))?
            .map_err(|error| NotFetched {
                reason: format!("cannot be fetched: {error}"),
                cause: if error.is::<LengthLimitError>() {
                    Cause::WrongContent
                } else {
                    Cause::Away
                },
            })?;
        Ok(body.to_bytes())
    }
}

pub(super) fn wrong_digest(digest: &ModuleDigest, wanted: &ModuleDigest) -> String {
    format!("its SHA-256 is {digest}, not {wanted} as the record says")
}

fn https_client() -> Result<Https, String> {
    let config = client_config(&TlsConfig::default(), true).map_err(|error| error.to_string())?;
    let connector = hyper_rustls::HttpsConnectorBuilder::new()
        .with_tls_config(config)
        .https_only()
        .enable_http1()
        .build();
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn keep(dir: &Path, digest: &ModuleDigest, bytes: &[u8]) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let path = dir.join(format!("{digest}.wasm"));
    Ok(durable_file::replace(&path, ".new", |file| {
        file.write_all(bytes)
    })?)
}
