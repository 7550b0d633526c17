//! The signatures of an artifact as they lie in a registry, to be written there and to be carried elsewhere.

use std::collections::BTreeMap;

use bytes::Bytes;
use serde_json::json;

use super::registry::{Package, sha256};
use crate::extensions::{
    ModuleDigest,
    oci::{
        Descriptor, ImageIndex, ImageManifest, RegistryClient, Repository, WebError, media, referrers_tag,
    },
    signing::{Evidence, SecretKey, bundle, signature_tag, simple},
};

/// What is carried along with one artifact.
const MAX_CARRIED: usize = 64;
const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";
const CONTENT_ANNOTATION: &str = "dev.sigstore.bundle.content";

/// Something that belongs to an artifact: what refers to it, and what has a tag made of its digest.
#[derive(Debug, Clone)]
pub(super) struct Attached {
    pub(super) package: Package,
    /// `None`: it refers to the artifact.
    pub(super) tag: Option<String>,
}

impl Attached {
    /// All that a registry has of an artifact.
    pub(super) async fn pull(
        registry: &RegistryClient<'_>,
        repository: &Repository,
        artifact: &ModuleDigest,
    ) -> Result<Vec<Self>, String> {
        let failed = |error: WebError| format!("{repository}@sha256:{artifact}: {error}");
        let mut all = Vec::new();
        let listed = registry.referrers(repository, artifact).await.map_err(failed)?;
        if listed.len() > MAX_CARRIED {
            return Err(format!(
                "{repository}@sha256:{artifact}: {} artifacts refer to it, more than {MAX_CARRIED}",
                listed.len()
            ));
        }
        for of in &listed {
            let package = Package::pull(registry, repository, &sha256(of)?).await?;
            all.push(Self { package, tag: None });
        }
        let tag = signature_tag(artifact);
        if let Some(text) = registry.manifest(repository, &tag).await.map_err(failed)? {
            let package = Package::pull(registry, repository, &ModuleDigest::of(&text)).await?;
            all.push(Self {
                package,
                tag: Some(tag),
            });
        }
        Ok(all)
    }

    /// Puts it into a repository, so that it is found there.
    pub(super) async fn push(
        &self,
        registry: &RegistryClient<'_>,
        repository: &Repository,
        artifact: &ModuleDigest,
    ) -> Result<(), String> {
        let pushed = self
            .package
            .push(registry, repository, self.tag.as_deref())
            .await?;
        if self.tag.is_some() || pushed.is_listed {
            return Ok(());
        }
        // The registry has no list of its own: a tag stands in for it.
        let failed = |error: WebError| format!("{repository}: {error}");
        let tag = referrers_tag(artifact);
        let known = registry.manifest(repository, &tag).await.map_err(failed)?;
        let mut index: ImageIndex = match known {
            Some(text) => serde_json::from_slice(&text)
                .map_err(|error| format!("{repository}:{tag} is no index: {error}"))?,
            None => ImageIndex::default(),
        };
        let new = self.descriptor()?;
        if index.manifests.iter().any(|listed| listed.digest == new.digest) {
            return Ok(());
        }
        index.manifests.push(new);
        let text = serde_json::to_vec(&index).map_err(|error| error.to_string())?;
        registry
            .push_manifest(repository, &tag, media::INDEX, text.into())
            .await
            .map(drop)
            .map_err(failed)
    }

    /// The signatures in it.
    pub(super) fn evidence(&self) -> Vec<Evidence> {
        let manifest = ImageManifest::read(&self.package.manifest).ok();
        let layers = manifest.iter().flat_map(|manifest| &manifest.layers);
        let content = |of: &Descriptor| {
            let digest = of.sha256()?;
            self.package
                .blobs
                .iter()
                .find(|blob| ModuleDigest::of(blob) == digest)
        };
        layers
            .filter_map(|layer| {
                let text = content(layer)?;
                match layer.annotations.get(simple::ANNOTATION) {
                    Some(signature) => Some(Evidence::from_simple(text, signature)),
                    None => Evidence::from_bundle(text).ok(),
                }
            })
            .collect()
    }

    /// How an index lists it.
    pub(super) fn descriptor(&self) -> Result<Descriptor, String> {
        let manifest = ImageManifest::read(&self.package.manifest)?;
        // cosign writes it into the configuration's descriptor only.
        let kind = manifest.artifact_type.or(manifest.config.artifact_type);
        let kind = kind.unwrap_or(manifest.config.media_type);
        Ok(Descriptor {
            artifact_type: Some(kind),
            annotations: manifest.annotations,
            ..Descriptor::of(self.package.media_type(), &self.package.manifest)
        })
    }

    /// A bundle in which a key signs an artifact.
    pub(super) fn bundle(
        subject: Descriptor,
        artifact: &ModuleDigest,
        key: &SecretKey,
    ) -> Result<Self, String> {
        let bundle = Evidence::sign_bundle(artifact, &key.public(), |message| key.sign(message))?;
        let bundle = Bytes::from(bundle.to_string());
        let empty = Bytes::from_static(b"{}");
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: Some(bundle::MEDIA_TYPE.to_owned()),
            config: Descriptor::of(media::EMPTY, &empty),
            layers: vec![Descriptor::of(bundle::MEDIA_TYPE, &bundle)],
            subject: Some(subject),
            annotations: BTreeMap::from([
                (CONTENT_ANNOTATION.to_owned(), "dsse-envelope".to_owned()),
                (PREDICATE_ANNOTATION.to_owned(), bundle::PREDICATE.to_owned()),
            ]),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
        Ok(Self {
            package: Package::new(manifest.into(), vec![empty, bundle]),
            tag: None,
        })
    }

    /// The older kind, beside those that are under the tag already.
    pub(super) async fn simple(
        registry: &RegistryClient<'_>,
        repository: &Repository,
        artifact: &ModuleDigest,
        key: &SecretKey,
    ) -> Result<Self, String> {
        use base64::{Engine, prelude::BASE64_STANDARD};
        let failed = |error: WebError| format!("{repository}: {error}");
        let tag = signature_tag(artifact);
        let name = format!("{}/{}", repository.host(), repository.name());
        let payload = Bytes::from(Evidence::simple_payload(artifact, &name));
        let mut layer = Descriptor::of(simple::MEDIA_TYPE, &payload);
        let signature = BASE64_STANDARD.encode(key.sign(&payload)?);
        layer.annotations.insert(simple::ANNOTATION.to_owned(), signature);
        let mut layers = match registry.manifest(repository, &tag).await.map_err(failed)? {
            Some(text) => ImageManifest::read(&text)?.layers,
            None => Vec::new(),
        };
        layers.push(layer);
        let digests: Vec<&String> = layers.iter().map(|layer| &layer.digest).collect();
        let config = json!({
            "architecture": "",
            "os": "",
            "config": {},
            "rootfs": {"type": "layers", "diff_ids": digests},
        });
        let config = Bytes::from(config.to_string());
        let manifest = ImageManifest {
            schema_version: 2,
            media_type: Some(media::MANIFEST.to_owned()),
            artifact_type: None,
            config: Descriptor::of("application/vnd.oci.image.config.v1+json", &config),
            layers,
            subject: None,
            annotations: BTreeMap::new(),
        };
        let manifest = serde_json::to_vec(&manifest).map_err(|error| error.to_string())?;
        Ok(Self {
            // Those that are there already need not be pushed.
            package: Package::new(manifest.into(), vec![config, payload]),
            tag: Some(tag),
        })
    }
}
