//! One policy in memory, and the layers that can hold a version of it.

use std::sync::{Arc, OnceLock};

use http::HeaderValue;
use serde::Serialize;

use super::provenance::Origin;
use crate::policy::{PolicyDocument, Problem, RoutingPolicy, errors, read, read_for_routing};

/// A version of a policy.
#[derive(Debug)]
pub struct Policy {
    /// The document, byte for byte as HEIR or the file has it.
    pub document: PolicyDocument,
    /// HEIR's revision of this version, where HEIR has revisions.
    pub revision: Option<u64>,
    flags: PolicyFlags,
    routing: OnceLock<Box<RoutingPolicy>>,
}

impl Policy {
    /// Takes a document, and notes whether a write of it would be refused or warned for. What exactly is found again
    /// on demand: the words take more room than the policy.
    pub fn new(document: PolicyDocument, revision: Option<u64>) -> Self {
        let flags = PolicyFlags::of(&document);
        Self::with_flags(document, revision, flags)
    }

    /// As [`new`](Self::new), of a document whose flags are known.
    pub fn with_flags(document: PolicyDocument, revision: Option<u64>, flags: PolicyFlags) -> Self {
        Self {
            document,
            revision,
            flags,
            routing: OnceLock::new(),
        }
    }

    /// What reading the document said, without the words.
    pub fn flags(&self) -> PolicyFlags {
        self.flags
    }

    /// Whether anything is wrong or odd about a policy that was taken all the same.
    pub fn is_noted(&self) -> bool {
        self.flags.is_noted
    }

    /// For how many mistakes a write of this document would be refused, as far as they are counted.
    pub fn errors(&self) -> usize {
        self.flags.errors.into()
    }

    /// What that is, read once more.
    pub fn notes(&self) -> Vec<Problem> {
        if self.is_noted() {
            read_for_routing(self.document.bytes()).1
        } else {
            Vec::new()
        }
    }

    /// Whether the document says anything about active checks; known without `routing`.
    pub fn has_health_check(&self) -> bool {
        self.flags.has_health_check
    }

    /// Whether the document names any extension; known without `routing`.
    pub fn has_extensions(&self) -> bool {
        self.flags.has_extensions
    }

    /// Whether `routing` is made.
    pub fn is_read(&self) -> bool {
        self.routing.get().is_some()
    }

    /// What the document says of decisions. Made by the first one and kept from then on: most policies of a large store are
    /// only ever looked up here, and this form is larger than the document. Making it cannot fail.
    pub fn routing(&self) -> &RoutingPolicy {
        self.routing
            .get_or_init(|| Box::new(read_for_routing(self.document.bytes()).0))
    }

    /// All that the document says, read once more.
    pub fn read(&self) -> RoutingPolicy {
        read(self.document.bytes()).0
    }
}

/// What reading a document says about it. Reading is most of what a start from disk would cost, so the disk snapshot keeps
/// this beside the document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PolicyFlags {
    is_noted: bool,
    has_health_check: bool,
    has_extensions: bool,
    errors: u16,
}

impl PolicyFlags {
    fn of(document: &PolicyDocument) -> Self {
        let (routing, notes) = read_for_routing(document.bytes());
        let provider_has = || routing.providers.iter().any(|p| p.health_check.is_some());
        Self {
            is_noted: !notes.is_empty(),
            has_health_check: routing.health_check.is_some() || provider_has(),
            has_extensions: routing.pipeline.is_some(),
            errors: u16::try_from(errors(&notes).count()).unwrap_or(u16::MAX),
        }
    }

    /// In four bytes: what it says, and the errors.
    pub fn to_bytes(self) -> [u8; 4] {
        let [low, high] = self.errors.to_le_bytes();
        let says = [self.is_noted, self.has_health_check, self.has_extensions];
        let says = (0..).zip(says).map(|(bit, says)| u8::from(says) << bit).sum();
        [says, 0, low, high]
    }

    /// From such bytes.
    pub fn from_bytes([says, _, low, high]: [u8; 4]) -> Self {
        Self {
            is_noted: says & 1 != 0,
            has_health_check: says & 2 != 0,
            has_extensions: says & 4 != 0,
            errors: u16::from_le_bytes([low, high]),
        }
    }
}

/// The same version: what is made from a document is no part of it.
impl PartialEq for Policy {
    fn eq(&self, other: &Self) -> bool {
        self.document == other.document && self.revision == other.revision
    }
}

/// Where an answer came from, as `x-beamline-source` says it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, schemars::JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "PolicySource")]
pub enum Source {
    /// HEIR, by this run.
    Heir,
    /// HEIR, by an earlier run.
    Disk,
    /// The local directory.
    File,
    /// A write that waits for HEIR.
    Journal,
}

impl Source {
    /// The value of the header, as text.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Heir => "heir",
            Self::Disk => "disk",
            Self::File => "file",
            Self::Journal => "journal",
        }
    }

    /// The value of the header.
    pub const fn header(self) -> HeaderValue {
        HeaderValue::from_static(self.as_str())
    }
}

impl From<Origin> for Source {
    fn from(origin: Origin) -> Self {
        match origin {
            Origin::Disk => Self::Disk,
            Origin::None | Origin::Heir => Self::Heir,
        }
    }
}

/// A write that waits for HEIR.
#[derive(Debug, Clone)]
pub enum Queued {
    /// This version is to be HEIR's.
    Put(Arc<Policy>),
    /// HEIR is to have none.
    Delete,
}

/// Everything known under one id. A queued write hides HEIR's version, and HEIR's version hides the local file:
/// what the platform demands is memory, then the central store, then the directory.
#[derive(Debug, Clone, Default)]
pub struct Entry {
    pub(crate) heir: Option<Arc<Policy>>,
    /// Apart, because few have these: a table of entries has twice as many places as policies at the worst.
    beside: Option<Box<Beside>>,
}

/// The layers beside HEIR's.
#[derive(Debug, Clone, Default)]
struct Beside {
    queued: Option<Queued>,
    file: Option<Arc<Policy>>,
}

/// What a lookup answers with.
#[derive(Debug, Clone, Copy)]
pub struct Found<'a> {
    /// The version.
    pub policy: &'a Arc<Policy>,
    /// Where it was found.
    pub layer: Layer,
}

/// The layer that an answer was taken from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The journal.
    Queued,
    /// HEIR, as far as is known.
    Heir,
    /// The local directory.
    File,
}

impl Found<'_> {
    /// Where the answer came from, in a snapshot of this origin.
    pub fn source(&self, origin: Origin) -> Source {
        match self.layer {
            Layer::Queued => Source::Journal,
            Layer::Heir => origin.into(),
            Layer::File => Source::File,
        }
    }
}

impl Entry {
    /// HEIR has this version, and that is all.
    pub(super) fn of_heir(policy: Arc<Policy>) -> Self {
        Self {
            heir: Some(policy),
            beside: None,
        }
    }

    pub(crate) fn queued(&self) -> Option<&Queued> {
        self.beside.as_ref()?.queued.as_ref()
    }

    pub(crate) fn file(&self) -> Option<&Arc<Policy>> {
        self.beside.as_ref()?.file.as_ref()
    }

    pub(super) fn set_queued(&mut self, queued: Option<Queued>) {
        self.edit_beside(|beside| beside.queued = queued);
    }

    pub(super) fn set_file(&mut self, file: Option<Arc<Policy>>) {
        self.edit_beside(|beside| beside.file = file);
    }

    fn edit_beside(&mut self, edit: impl FnOnce(&mut Beside)) {
        let mut beside = self.beside.take().unwrap_or_default();
        edit(&mut beside);
        self.beside = (beside.queued.is_some() || beside.file.is_some()).then_some(beside);
    }

    pub(crate) fn found(&self) -> Option<Found<'_>> {
        let (policy, layer) = match (self.queued(), &self.heir, self.file()) {
            (Some(Queued::Put(policy)), _, _) => (policy, Layer::Queued),
            (Some(Queued::Delete), _, _) => return None,
            (None, Some(policy), _) => (policy, Layer::Heir),
            (None, None, Some(policy)) => (policy, Layer::File),
            (None, None, None) => return None,
        };
        Some(Found { policy, layer })
    }

    /// Whether this very version is in one of the layers.
    pub(super) fn holds(&self, policy: &Arc<Policy>) -> bool {
        let queued = match self.queued() {
            Some(Queued::Put(queued)) => Some(queued),
            _ => None,
        };
        let mut layers = [queued, self.heir.as_ref(), self.file()].into_iter().flatten();
        layers.any(|known| Arc::ptr_eq(known, policy))
    }

    pub(super) fn is_vacant(&self) -> bool {
        self.heir.is_none() && self.beside.is_none()
    }
}
