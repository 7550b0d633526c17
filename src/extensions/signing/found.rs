//! Finds the signatures of an artifact in its registry.

use super::evidence::{Evidence, bundle, simple};
use crate::extensions::{
    digest::ModuleDigest,
    oci::{Descriptor, ImageManifest, RegistryClient, Repository, media},
    web::WebError,
};

/// Signatures of one artifact that are looked at. Every client that may push to a repository may put others beside it.
const MAX_SIGNATURES: usize = 64;
/// The largest of them.
const MAX_BYTES: u64 = 256 << 10;

/// The tag under which the older kind of signature lies.
pub fn signature_tag(artifact: &ModuleDigest) -> String {
    format!("sha256-{artifact}.sig")
}

/// The signatures that a registry has of an artifact, by whomever: bundles first, then those under the tag.
///
/// # Errors
/// When the registry does not answer as it should, and nothing was found.
pub async fn find_signatures(
    registry: &RegistryClient<'_>,
    repository: &Repository,
    artifact: &ModuleDigest,
) -> Result<Vec<Evidence>, WebError> {
    let mut found = Found::default();
    let is_bundle = |of: &Descriptor| {
        let kind = of.artifact_type.as_deref();
        // A list that was written by another tool may not say what it lists.
        kind.is_none_or(|kind| kind == media::EMPTY || kind.starts_with(bundle::PREFIX))
    };
    let listed = registry.referrers(repository, artifact).await?;
    for of in listed.iter().filter(|of| is_bundle(of)).take(MAX_SIGNATURES) {
        let manifest = match registry.manifest(repository, &of.digest).await {
            Ok(Some(text)) => ImageManifest::read(&text).ok(),
            Ok(None) => None,
            Err(error) => found.missed(error),
        };
        for layer in manifest.iter().flat_map(|manifest| &manifest.layers) {
            if layer.media_type.starts_with(bundle::PREFIX)
                && let Some(text) = found.content(registry, repository, layer).await
            {
                found.evidence.extend(Evidence::from_bundle(&text).ok());
            }
        }
    }
    let tagged = registry.manifest(repository, &signature_tag(artifact)).await?;
    let tagged = tagged.and_then(|text| ImageManifest::read(&text).ok());
    let layers = tagged.iter().flat_map(|manifest| &manifest.layers);
    for layer in layers.take(MAX_SIGNATURES) {
        if layer.media_type == simple::MEDIA_TYPE
            && let Some(signature) = layer.annotations.get(simple::ANNOTATION)
            && let Some(payload) = found.content(registry, repository, layer).await
        {
            found.evidence.push(Evidence::from_simple(&payload, signature));
        }
    }
    match found.error {
        Some(error) if found.evidence.is_empty() => Err(error),
        _ => Ok(found.evidence),
    }
}

/// What was found so far. One that cannot be had does not hide the others.
#[derive(Default)]
struct Found {
    evidence: Vec<Evidence>,
    error: Option<WebError>,
}

impl Found {
    fn missed<T>(&mut self, error: WebError) -> Option<T> {
        self.error = Some(error);
        None
    }

    async fn content(
        &mut self,
        registry: &RegistryClient<'_>,
        repository: &Repository,
        of: &Descriptor,
    ) -> Option<bytes::Bytes> {
        let digest = of.sha256().filter(|_| of.size <= MAX_BYTES)?;
        match registry.blob(repository, &digest, MAX_BYTES).await {
            Ok(content) => Some(content),
            Err(error) => self.missed(error),
        }
    }
}
