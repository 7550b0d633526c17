//! Fetching modules: from a file, from the private directory of what was fetched before, from HEIR, from a web server.

use std::{
    fs, io,
    io::{Read, Write},
    path::{Path, PathBuf},
    sync::OnceLock,
    time::Duration,
};

use bytes::Bytes;
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::time::timeout;

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

type Https = Client<hyper_rustls::HttpsConnector<HttpConnector>, Empty<Bytes>>;

#[derive(Debug)]
pub(super) struct Fetcher {
    max_module_bytes: u64,
    hosts: Vec<String>,
    /// Modules that were fetched, by their digests.
    kept: Option<PathBuf>,
    https: OnceLock<Result<Https, String>>,
}

impl Fetcher {
    pub(super) fn new(config: &ExtensionsConfig, state: Option<&Path>) -> Self {
        Self {
            max_module_bytes: config.max_module_bytes,
            hosts: config.module_hosts.clone(),
            kept: state.map(|state| state.join("modules")),
            https: OnceLock::new(),
        }
    }

    /// The bytes of a module, or why they are not available, where this machine knows; `None`: they must be fetched.
    pub(super) fn here(&self, module: &Module, dir: Option<&Path>) -> Option<Result<Vec<u8>, String>> {
        match &module.source {
            ModuleSource::File(path) => Some(match dir {
                Some(dir) => self.read(dir, path),
                None => Err("there is no extensions_dir: set it, or put the module into HEIR".into()),
            }),
            ModuleSource::Heir(_) | ModuleSource::Https(_) => {
                let digest = module.digest?;
                let bytes = fs::read(self.kept.as_ref()?.join(format!("{digest}.wasm"))).ok()?;
                (ModuleDigest::of(&bytes) == digest).then_some(Ok(bytes))
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

    /// Fetches a module that is not here.
    pub(super) async fn fetch(&self, module: &Module, heir: Option<&HeirClient>) -> Result<Vec<u8>, String> {
        let bytes = match &module.source {
            ModuleSource::File(_) => return Err("a file is never fetched".into()),
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
        if let Some(digest) = module.digest
            && ModuleDigest::of(&bytes) == digest
            && let Some(dir) = &self.kept
            && let Err(error) = keep(dir, &digest, &bytes)
        {
            tracing::warn!(%error, %digest, "A module was not kept on disk.");
        }
        Ok(bytes.to_vec())
    }

    async fn get(&self, url: &str) -> Result<Bytes, String> {
        let uri: Uri = url.parse().map_err(|error| format!("not a URL: {error}"))?;
        let host = uri.host().unwrap_or_default();
        if !self.hosts.iter().any(|allowed| allowed == host) {
            return Err(format!(
                "{host} is not one of extensions.module_hosts: add it, if modules may come from there"
            ));
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
            return Err(format!("the server answers {}", response.status()));
        }
        let max_bytes = usize::try_from(self.max_module_bytes).unwrap_or(usize::MAX);
        let body = timeout(TIMEOUT, Limited::new(response.into_body(), max_bytes).collect())
            .await
            .map_err(|_elapsed| format!("not whole within {} s", TIMEOUT.as_secs()))?
            .map_err(|error| format!("cannot be fetched: {error}"))?;
        Ok(body.to_bytes())
    }
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
