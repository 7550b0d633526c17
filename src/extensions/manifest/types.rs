//! What a registry record describes.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Map, Value};

use super::{created_at::CreatedAt, limits::ManifestLimits, module::Module};
use crate::extensions::sandbox::{Capability, Kind};

/// Registry records as HEIR or the local directory has them: texts in JSON, by the ids that they are kept under.
pub type ExtensionRecords = BTreeMap<String, Arc<str>>;

/// An extension as its record describes it.
#[derive(Debug, Clone, PartialEq)]
pub struct Manifest {
    /// The name that policies call it by.
    pub id: Box<str>,
    /// What it is registered as.
    pub kind: ManifestKind,
    /// Whether it may be called.
    pub enabled: bool,
    /// For people.
    pub description: Box<str>,
    /// Whether no message should pass without it: a policy that lets it fail gets a warning.
    pub is_guard: bool,
    /// The record's own fields; a version may override them.
    pub base: Release,
    /// What its component may import besides `log`.
    pub capabilities: Vec<Capability>,
    /// The limits of its calls.
    pub limits: ManifestLimits,
    /// The enabled versions, the newest first.
    pub versions: Vec<Release>,
    /// The enabled instances, the heaviest first.
    pub instances: Vec<Instance>,
}

/// What may be registered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ManifestKind {
    /// An extension of a kind, which is called.
    Runs(Kind),
    /// Describes a provider; never called.
    Provider,
}

impl ManifestKind {
    /// As `type` of a record names it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Runs(kind) => kind.as_str(),
            Self::Provider => "provider",
        }
    }
}

/// One version of an extension.
#[derive(Debug, Clone, PartialEq)]
pub struct Release {
    /// Its name, such as `v2`.
    pub version: Box<str>,
    /// Its component; instances may have others.
    pub module: Option<Module>,
    /// The subject of a handler on the message bus.
    pub subject: Option<Box<str>>,
    /// How long a call may take, in milliseconds; `None`: as configured for this sidecar.
    pub timeout_ms: Option<u32>,
    /// How often a call that timed out is made again.
    pub retry: u32,
    /// What the extension is configured with; a policy may override it key by key.
    pub config: Map<String, Value>,
    /// The largest payload that it is called with.
    pub max_payload_bytes: usize,
    /// The largest context that it is called with.
    pub max_metadata_bytes: usize,
    /// Matches a context that has each of these values; an array stands for any of its items.
    pub routing_rules: Map<String, Value>,
    /// Versions are sorted by it.
    pub(super) created_at: CreatedAt,
}

/// One of several that share the calls of an extension.
#[derive(Debug, Clone, PartialEq)]
pub struct Instance {
    /// Its name, unique within the extension.
    pub id: Box<str>,
    /// Its share of the calls: 0 to 100.
    pub weight: u32,
    /// Its component; `None`: the version's.
    pub module: Option<Module>,
}

impl Manifest {
    /// The kind of extension that is called; `None` for a provider, which never is.
    pub const fn runs(&self) -> Option<Kind> {
        match self.kind {
            ManifestKind::Runs(kind) => Some(kind),
            ManifestKind::Provider => None,
        }
    }

    /// Every module that the extension may need.
    pub fn modules(&self) -> impl Iterator<Item = &Module> {
        let releases = std::iter::once(&self.base).chain(&self.versions);
        let of_releases = releases.filter_map(|release| release.module.as_ref());
        of_releases.chain(
            self.instances
                .iter()
                .filter_map(|instance| instance.module.as_ref()),
        )
    }

    /// Puts other modules in place of its own.
    pub(in crate::extensions) fn exchange_modules(&mut self, other: impl Fn(&Module) -> Option<Module>) {
        let releases = std::iter::once(&mut self.base).chain(&mut self.versions);
        let of_releases = releases.map(|release| &mut release.module);
        for module in of_releases.chain(self.instances.iter_mut().map(|instance| &mut instance.module)) {
            if let Some(exchanged) = module.as_ref().and_then(&other) {
                *module = Some(exchanged);
            }
        }
    }
}
