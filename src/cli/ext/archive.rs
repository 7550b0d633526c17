//! An artifact and its signatures as a file: an OCI image layout in a tar archive, as other tools read and write it.

use std::{
    collections::{BTreeMap, HashMap},
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};

use bytes::Bytes;
use serde_json::json;

use super::{
    registry::{Package, sha256},
    signed::Attached,
};
use crate::{
    durable_file,
    extensions::{
        ExtensionsConfig, ModuleDigest,
        oci::{Descriptor, ImageIndex, ImageManifest, media},
        signing::signature_tag,
    },
    plain_file,
};

const LAYOUT: &str = "oci-layout";
const INDEX: &str = "index.json";
const BLOBS: &str = "blobs/sha256/";
const TAG: &str = "org.opencontainers.image.ref.name";
/// Files of an archive that are read.
const MAX_FILES: usize = 1_024;
/// All of them together, in bytes; the archive is held in memory.
const MAX_BYTES: u64 = 512 << 20;

/// An artifact with what belongs to it.
#[derive(Debug)]
pub(super) struct Archive {
    pub(super) package: Package,
    pub(super) attached: Vec<Attached>,
}

impl Archive {
    /// Writes the file. The same artifact is the same file.
    pub(super) fn write(&self, file: &Path, tag: Option<&str>) -> Result<(), String> {
        let failed = |error: &dyn std::fmt::Display| format!("{}: {error}", file.display());
        let mut blobs: BTreeMap<ModuleDigest, &Bytes> = BTreeMap::new();
        let mut index = ImageIndex::default();
        let packages = self.attached.iter().map(|attached| &attached.package);
        for package in packages.chain([&self.package]) {
            for blob in package.blobs.iter().chain([&package.manifest]) {
                blobs.insert(ModuleDigest::of(blob), blob);
            }
        }
        let mut own = Descriptor::of(media::MANIFEST, &self.package.manifest);
        if let Some(tag) = tag {
            own.annotations.insert(TAG.to_owned(), tag.to_owned());
        }
        index.manifests.push(own);
        for attached in &self.attached {
            let mut of = attached.descriptor()?;
            if let Some(tag) = &attached.tag {
                of.annotations.insert(TAG.to_owned(), tag.clone());
            }
            index.manifests.push(of);
        }
        let index = serde_json::to_vec(&index).map_err(|error| failed(&error))?;
        let layout = json!({"imageLayoutVersion": "1.0.0"}).to_string();
        durable_file::replace(file, ".new", |to| {
            let mut tar = tar::Builder::new(to);
            append(&mut tar, LAYOUT, layout.as_bytes())?;
            append(&mut tar, INDEX, &index)?;
            for (digest, blob) in &blobs {
                append(&mut tar, &format!("{BLOBS}{digest}"), blob)?;
            }
            tar.finish()
        })
        .map_err(|error| failed(&error))
    }

    /// Reads a file that holds one artifact. All content is as its digests say.
    pub(super) fn read(file: &Path) -> Result<Self, String> {
        let named = |reason: String| format!("{}: {reason}", file.display());
        let open = plain_file::open(file).map_err(|error| named(error.to_string()))?;
        let (index, blobs) = read_files(open).map_err(named)?;
        Self::of(&index, &blobs).map_err(named)
    }

    fn of(index: &ImageIndex, blobs: &HashMap<ModuleDigest, Bytes>) -> Result<Self, String> {
        let mut own = Vec::new();
        let mut others = Vec::new();
        for of in &index.manifests {
            let text = find(blobs, of)?;
            let manifest = ImageManifest::read(text)?;
            let contents = std::iter::once(&manifest.config).chain(&manifest.layers);
            let contents = contents
                .map(|of| find(blobs, of).cloned())
                .collect::<Result<_, _>>()?;
            let package = Package::new(text.clone(), contents);
            if manifest.subject.is_none() && manifest.module().is_ok() {
                own.push(package);
            } else {
                others.push((package, manifest.subject, of.annotations.get(TAG)));
            }
        }
        let [package] = <[Package; 1]>::try_from(own)
            .map_err(|own| format!("it holds {} artifacts with a module, and not one", own.len()))?;
        let mut attached = Vec::new();
        for (other, subject, tag) in others {
            let refers = match &subject {
                Some(subject) => sha256(subject)? == package.digest,
                None => false,
            };
            if refers {
                attached.push(Attached {
                    package: other,
                    tag: None,
                });
            } else if tag.is_some_and(|tag| *tag == signature_tag(&package.digest)) {
                attached.push(Attached {
                    package: other,
                    tag: tag.cloned(),
                });
            }
        }
        Ok(Self { package, attached })
    }
}

fn append(tar: &mut tar::Builder<&mut File>, name: &str, content: &[u8]) -> io::Result<()> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o644);
    header.set_mtime(0);
    header.set_cksum();
    tar.append_data(&mut header, name, content)
}

fn find<'a>(blobs: &'a HashMap<ModuleDigest, Bytes>, of: &Descriptor) -> Result<&'a Bytes, String> {
    let digest = sha256(of)?;
    blobs
        .get(&digest)
        .ok_or_else(|| format!("it lacks {}", of.digest))
}

fn read_files(file: File) -> Result<(ImageIndex, HashMap<ModuleDigest, Bytes>), String> {
    let most = ExtensionsConfig::default().max_module_bytes;
    let unreadable = |error: io::Error| format!("it is no tar archive that can be read: {error}");
    let (mut index, mut blobs, mut total) = (None, HashMap::new(), 0_u64);
    let mut archive = tar::Archive::new(BufReader::new(file).take(MAX_BYTES));
    for (count, entry) in archive.entries().map_err(unreadable)?.enumerate() {
        let entry = entry.map_err(unreadable)?;
        let name = entry.path().map_err(unreadable)?.to_string_lossy().into_owned();
        let name = name.trim_start_matches("./").to_owned();
        total = total.saturating_add(entry.size());
        if count >= MAX_FILES || total > MAX_BYTES {
            return Err(format!(
                "it has more than {MAX_FILES} files, or more than {MAX_BYTES} bytes"
            ));
        }
        let blob = name.strip_prefix(BLOBS).and_then(ModuleDigest::parse);
        if name != INDEX && blob.is_none() {
            continue;
        }
        if entry.size() > most {
            return Err(format!("{name} has {} bytes, more than {most}", entry.size()));
        }
        let mut content = Vec::new();
        entry.take(most).read_to_end(&mut content).map_err(unreadable)?;
        match blob {
            Some(digest) if ModuleDigest::of(&content) == digest => {
                blobs.insert(digest, Bytes::from(content));
            }
            Some(digest) => {
                return Err(format!(
                    "the SHA-256 of {name} is {}, not {digest}",
                    ModuleDigest::of(&content)
                ));
            }
            None => {
                let read = serde_json::from_slice(&content);
                index = Some(read.map_err(|error| format!("{INDEX} cannot be read: {error}"))?);
            }
        }
    }
    let index = index.ok_or_else(|| format!("it holds no {INDEX}: it is no OCI image layout"))?;
    Ok((index, blobs))
}
