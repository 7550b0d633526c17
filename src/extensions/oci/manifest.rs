//! Manifests and indexes, as far as artifacts with one module need them.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::extensions::digest::ModuleDigest;

/// The types of content.
pub mod media {
    /// A manifest.
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// An index, which lists manifests.
    pub const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    /// A configuration that says nothing.
    pub const EMPTY: &str = "application/vnd.oci.empty.v1+json";
    /// A module in the layout of the CNCF.
    pub const WASM: &str = "application/wasm";
    /// The configuration beside it.
    pub const WASM_CONFIG: &str = "application/vnd.wasm.config.v0+json";
    /// A module in the layout that Kubewarden has.
    pub const KUBEWARDEN: &str = "application/vnd.wasm.content.layer.v1+wasm";
    /// The configuration beside it.
    pub const KUBEWARDEN_CONFIG: &str = "application/vnd.wasm.config.v1+json";
}

/// How an artifact is laid out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, clap::ValueEnum, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Layout {
    /// As the CNCF's guidance for WebAssembly has it.
    #[default]
    Wasm,
    /// As Kubewarden has it.
    Kubewarden,
}

impl Layout {
    /// The types of the module and of the configuration.
    pub const fn media_types(self) -> (&'static str, &'static str) {
        match self {
            Self::Wasm => (media::WASM, media::WASM_CONFIG),
            Self::Kubewarden => (media::KUBEWARDEN, media::KUBEWARDEN_CONFIG),
        }
    }
}

/// Names content by its digest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Descriptor {
    /// What it is.
    pub media_type: String,
    /// `sha256:…`.
    pub digest: String,
    /// Its bytes.
    pub size: u64,
    /// What an artifact is, where it is no image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Descriptor {
    /// Describes content.
    pub fn of(media_type: &str, content: &[u8]) -> Self {
        Self {
            media_type: media_type.to_owned(),
            digest: format!("sha256:{}", ModuleDigest::of(content)),
            size: content.len() as u64,
            artifact_type: None,
            annotations: BTreeMap::new(),
        }
    }

    /// The digest; `None`: of a kind that is not supported.
    pub fn sha256(&self) -> Option<ModuleDigest> {
        self.digest.strip_prefix("sha256:").and_then(ModuleDigest::parse)
    }
}

/// A manifest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageManifest {
    /// 2.
    pub schema_version: u32,
    /// [`media::MANIFEST`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What an artifact is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// Its configuration.
    pub config: Descriptor,
    /// Its content.
    #[serde(default)]
    pub layers: Vec<Descriptor>,
    /// What it is about, such as what a signature signs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// An index.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ImageIndex {
    /// 2.
    pub schema_version: u32,
    /// [`media::INDEX`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What it lists.
    #[serde(default)]
    pub manifests: Vec<Descriptor>,
    /// More about it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Default for ImageIndex {
    fn default() -> Self {
        Self {
            schema_version: 2,
            media_type: Some(media::INDEX.to_owned()),
            manifests: Vec::new(),
            annotations: BTreeMap::new(),
        }
    }
}

impl ImageManifest {
    /// Reads a manifest.
    ///
    /// # Errors
    /// When it is none of an artifact.
    pub fn read(text: &[u8]) -> Result<Self, String> {
        let is_index =
            serde_json::from_slice::<ImageIndex>(text).is_ok_and(|index| !index.manifests.is_empty());
        if is_index {
            return Err("it is an index of several artifacts: name the digest of one of them".into());
        }
        serde_json::from_slice(text).map_err(|error| format!("its manifest cannot be read: {error}"))
    }

    /// The one layer that is a module, and its digest.
    ///
    /// # Errors
    /// When there is none, or there are several.
    pub fn module(&self) -> Result<(&Descriptor, ModuleDigest), String> {
        let is_module =
            |layer: &&Descriptor| [media::WASM, media::KUBEWARDEN].contains(&layer.media_type.as_str());
        let mut modules = self.layers.iter().filter(is_module);
        let (Some(module), None) = (modules.next(), modules.next()) else {
            let types: Vec<&str> = self
                .layers
                .iter()
                .map(|layer| &*layer.media_type)
                .take(8)
                .collect();
            return Err(format!(
                "the artifact does not hold one module: it has layers of {types:?}, and a module is of {} or {}",
                media::WASM,
                media::KUBEWARDEN
            ));
        };
        let digest = module
            .sha256()
            .ok_or_else(|| format!("its module has the digest {:?}, and not a sha256", module.digest))?;
        Ok((module, digest))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(types: &[&str]) -> ImageManifest {
        ImageManifest {
            schema_version: 2,
            media_type: None,
            artifact_type: None,
            config: Descriptor::of(media::EMPTY, b"{}"),
            layers: types.iter().map(|of| Descriptor::of(of, b"module")).collect(),
            subject: None,
            annotations: BTreeMap::new(),
        }
    }

    #[test]
    fn an_artifact_holds_one_module_in_either_layout() {
        for layout in [Layout::Wasm, Layout::Kubewarden] {
            let one = manifest(&["text/plain", layout.media_types().0]);
            assert_eq!(one.module().unwrap().1, ModuleDigest::of(b"module"));
        }
        for types in [&["text/plain"][..], &[media::WASM, media::KUBEWARDEN], &[]] {
            let reason = manifest(types).module().unwrap_err();
            assert!(reason.contains("does not hold one module"), "{reason}");
        }
        let mut other = manifest(&[media::WASM]);
        other.layers[0].digest = "sha512:00".into();
        assert!(other.module().unwrap_err().contains("not a sha256"));
    }

    #[test]
    fn an_index_is_told_from_a_manifest() {
        let text = serde_json::to_vec(&manifest(&[media::WASM])).unwrap();
        assert!(ImageManifest::read(&text).is_ok());
        let index = ImageIndex {
            manifests: vec![Descriptor::of(media::MANIFEST, &text)],
            ..ImageIndex::default()
        };
        let reason = ImageManifest::read(&serde_json::to_vec(&index).unwrap()).unwrap_err();
        assert!(reason.contains("index"), "{reason}");
    }
}
