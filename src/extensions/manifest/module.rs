//! Where a component comes from, and how its bytes are named.

use std::{fmt, path::Path};

use crate::extensions::{digest::ModuleDigest, oci::Artifact, sandbox::Profile};

/// A module, and the digest that it must have.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Module {
    /// Where it is fetched from.
    pub source: ModuleSource,
    /// Always present but for files and artifacts of a registry, whose manifest names it.
    pub digest: Option<ModuleDigest>,
    /// A signature over its bytes, in base64.
    pub signature: Option<Box<str>>,
    /// What its calls compute is counted: the record sets `limits.fuel`.
    pub is_metered: bool,
}

impl Module {
    /// The engine that it runs on.
    pub fn profile(&self, bytes: &[u8]) -> Profile {
        Profile::of(bytes).metered(self.is_metered)
    }

    /// Whether it may be another one the next time that it is looked at.
    pub(in crate::extensions) fn may_change(&self) -> bool {
        matches!(self.source, ModuleSource::File(_))
    }
}

/// `module` of a registry record.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ModuleSource {
    /// A file below the directory of extensions, by its relative path.
    File(Box<str>),
    /// A module in HEIR's own store.
    Heir(ModuleDigest),
    /// A file of a web server.
    Https(Box<str>),
    /// An artifact in a registry.
    Oci(Artifact),
    /// A copy that this sidecar made of a module which ran well. No record names it.
    Kept(ModuleDigest),
}

impl ModuleSource {
    /// Reads a source.
    ///
    /// # Errors
    /// What is wrong with it, and what would be valid.
    pub fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let (scheme, rest) = text.split_once(':').unwrap_or(("", text));
        match scheme {
            "file" => {
                let path = rest.trim_start_matches("//");
                let is_below = !path.is_empty()
                    && Path::new(path).components().all(|part| {
                        matches!(
                            part,
                            std::path::Component::Normal(_) | std::path::Component::CurDir
                        )
                    });
                if is_below {
                    Ok(Self::File(path.into()))
                } else {
                    Err((
                        format!("{text:?} leads out of the directory of extensions"),
                        "name a file below extensions_dir, such as file:my-guard.wasm",
                    ))
                }
            }
            "heir" => rest
                .strip_prefix("sha256/")
                .and_then(ModuleDigest::parse)
                .map(Self::Heir)
                .ok_or_else(|| {
                    (
                        format!("{text:?} names no digest"),
                        "write heir:sha256/ and 64 hex digits",
                    )
                }),
            "https" => Ok(Self::Https(text.into())),
            "oci" => Artifact::parse(text).map(Self::Oci),
            _ => Err((
                format!("{text:?} has no scheme that is known"),
                "begin it with file:, heir:sha256/, https: or oci:",
            )),
        }
    }
}

impl fmt::Display for ModuleSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "file:{path}"),
            Self::Heir(digest) => write!(f, "heir:sha256/{digest}"),
            Self::Https(url) => f.write_str(url),
            Self::Oci(artifact) => write!(f, "{artifact}"),
            Self::Kept(digest) => write!(f, "kept:sha256/{digest}"),
        }
    }
}
