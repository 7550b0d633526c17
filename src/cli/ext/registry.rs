//! How commands speak to registries, and what they carry: an artifact, whole.

use std::path::PathBuf;

use bytes::Bytes;
use clap::Args;
use secrecy::SecretString;

use crate::{
    config,
    extensions::{
        ExtensionsConfig, ModuleDigest,
        oci::{
            Access, Credentials, Descriptor, ImageManifest, Pushed, Reference, Registries, RegistryClient,
            Repository, WebError, media,
        },
    },
    plain_file,
};

/// The largest configuration of an artifact.
const MAX_CONFIG_BYTES: u64 = 1 << 20;

/// What a command has to know of registries.
#[derive(Debug, Args)]
pub(super) struct RegistryArgs {
    /// The credentials of registries, as Docker writes them [default: config.json in $DOCKER_CONFIG or ~/.docker].
    #[arg(long, value_name = "FILE")]
    credentials: Option<PathBuf>,
    /// The user to be, in place of what the credentials say.
    #[arg(long, value_name = "USER", requires = "password_file")]
    username: Option<String>,
    /// A file with that user's password, or token.
    #[arg(long, value_name = "FILE", requires = "username")]
    password_file: Option<PathBuf>,
    /// A registry (HOST or HOST:PORT) that is spoken to without TLS; those of this machine always are.
    #[arg(long, value_name = "HOST")]
    plain_http: Vec<String>,
}

impl RegistryArgs {
    fn access(&self) -> Result<Access, String> {
        Ok(Access::anywhere(self.plain_http.clone(), self.credentials()?))
    }

    fn credentials(&self) -> Result<Credentials, String> {
        if let (Some(user), Some(file)) = (&self.username, &self.password_file) {
            let password =
                plain_file::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
            let password = SecretString::from(password.trim_end_matches(['\r', '\n']));
            return Ok(Credentials::of(user.clone(), password));
        }
        if let Some(file) = &self.credentials {
            return Credentials::read(file);
        }
        let mut environment = config::environment();
        let own = environment.remove("DOCKER_CONFIG").map(PathBuf::from);
        let dir = own.or_else(|| Some(PathBuf::from(environment.remove("HOME")?).join(".docker")));
        match dir
            .map(|dir| dir.join("config.json"))
            .filter(|file| file.exists())
        {
            Some(file) => Credentials::read(&file),
            None => Ok(Credentials::default()),
        }
    }

    /// Does something with registries, to its end.
    pub(super) fn run<T>(
        &self,
        work: impl AsyncFnOnce(&RegistryClient<'_>) -> Result<T, String>,
    ) -> Result<T, String> {
        let registries = Registries::new(self.access()?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| error.to_string())?;
        runtime.block_on(work(&registries.client()))
    }
}

/// An artifact with all that belongs to it.
#[derive(Debug, Clone)]
pub(super) struct Package {
    /// The digest of its manifest.
    pub(super) digest: ModuleDigest,
    pub(super) manifest: Bytes,
    /// The configuration and the layers.
    pub(super) blobs: Vec<Bytes>,
}

impl Package {
    pub(super) fn new(manifest: Bytes, blobs: Vec<Bytes>) -> Self {
        Self {
            digest: ModuleDigest::of(&manifest),
            manifest,
            blobs,
        }
    }

    /// The type of its manifest.
    pub(super) fn media_type(&self) -> &'static str {
        media::MANIFEST
    }

    /// Pulls an artifact whose digest is known.
    pub(super) async fn pull(
        registry: &RegistryClient<'_>,
        repository: &Repository,
        digest: &ModuleDigest,
    ) -> Result<Self, String> {
        let failed = |error: WebError| format!("{repository}@sha256:{digest}: {error}");
        let text = registry
            .manifest(repository, &format!("sha256:{digest}"))
            .await
            .map_err(failed)?
            .ok_or_else(|| format!("{repository}@sha256:{digest}: there is no such artifact"))?;
        let named = |reason: String| format!("{repository}@sha256:{digest}: {reason}");
        let manifest = ImageManifest::read(&text).map_err(named)?;
        let most = ExtensionsConfig::default().max_module_bytes;
        let mut blobs = Vec::new();
        for (index, of) in std::iter::once(&manifest.config)
            .chain(&manifest.layers)
            .enumerate()
        {
            let most = if index == 0 { MAX_CONFIG_BYTES } else { most };
            if of.size > most {
                return Err(named(format!(
                    "{} has {} bytes, more than {most}",
                    of.digest, of.size
                )));
            }
            blobs.push(
                registry
                    .blob(repository, &sha256(of).map_err(named)?, most)
                    .await
                    .map_err(failed)?,
            );
        }
        Ok(Self::new(text, blobs))
    }

    /// The module of the artifact.
    pub(super) fn module(&self) -> Result<&Bytes, String> {
        let (_, digest) = ImageManifest::read(&self.manifest)?
            .module()
            .map(|(of, digest)| (of.clone(), digest))?;
        self.blobs
            .iter()
            .find(|blob| ModuleDigest::of(blob) == digest)
            .ok_or_else(|| "its module is missing".to_owned())
    }

    /// Pushes it under its digest, or a tag.
    pub(super) async fn push(
        &self,
        registry: &RegistryClient<'_>,
        repository: &Repository,
        tag: Option<&str>,
    ) -> Result<Pushed, String> {
        let failed = |error: WebError| format!("{repository}: {error}");
        for blob in &self.blobs {
            registry.push_blob(repository, blob).await.map_err(failed)?;
        }
        let reference = tag.map_or_else(|| format!("sha256:{}", self.digest), ToOwned::to_owned);
        registry
            .push_manifest(repository, &reference, self.media_type(), self.manifest.clone())
            .await
            .map_err(failed)
    }
}

/// The digest of content.
pub(super) fn sha256(of: &Descriptor) -> Result<ModuleDigest, String> {
    of.sha256()
        .ok_or_else(|| format!("{:?} is no sha256 digest", of.digest))
}

/// The digest of the artifact that a name leads to.
pub(super) async fn resolve(registry: &RegistryClient<'_>, name: &Reference) -> Result<ModuleDigest, String> {
    if let Some(digest) = name.digest {
        return Ok(digest);
    }
    let tag = name
        .to_ask()
        .ok_or_else(|| format!("{name} names neither a tag nor a digest: add :TAG or @sha256:…"))?;
    let text = registry
        .manifest(&name.repository, &tag)
        .await
        .map_err(|error| format!("{name}: {error}"))?
        .ok_or_else(|| format!("{name}: there is no such artifact"))?;
    Ok(ModuleDigest::of(&text))
}
