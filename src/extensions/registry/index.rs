//! All extensions of one snapshot. Immutable; it changes together with the policies that name them.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use hashbrown::HashMap;

use super::extension::{Extension, ManifestSource};
use crate::{extensions::manifest::ExtensionRecords, policy::Problem};

/// Everything that is registered.
#[derive(Debug, Default)]
pub struct Registry {
    pub(super) extensions: HashMap<Box<str>, Arc<Extension>>,
    pub(super) problems: BTreeMap<String, Vec<Problem>>,
    pub(super) disabled: BTreeMap<String, ManifestSource>,
    pub(super) pending: BTreeSet<String>,
    pub(super) origin: Origin,
}

/// What a registry was built from.
#[derive(Debug, Default, Clone)]
pub(super) struct Origin {
    pub(super) records: Arc<ExtensionRecords>,
    pub(super) revision: u64,
}

impl Registry {
    /// An extension that can be called.
    pub fn get(&self, id: &str) -> Option<&Arc<Extension>> {
        self.extensions.get(id)
    }

    /// All extensions that can be called, by id.
    pub fn sorted(&self) -> Vec<&Arc<Extension>> {
        let mut all: Vec<_> = self.extensions.values().collect();
        all.sort_unstable_by(|a, b| a.id.cmp(&b.id));
        all
    }

    /// What is wrong with records, by their ids. An extension whose record has errors keeps its last good state, if it had
    /// one.
    pub fn problems(&self) -> &BTreeMap<String, Vec<Problem>> {
        &self.problems
    }

    /// Extensions that are registered and must not be called.
    pub fn disabled(&self) -> &BTreeMap<String, ManifestSource> {
        &self.disabled
    }

    /// Extensions whose modules are fetched or compiled at present. One that could be called before goes on as it was.
    pub fn pending(&self) -> &BTreeSet<String> {
        &self.pending
    }

    /// Whether an extension's module is fetched or compiled at present.
    pub fn is_pending(&self, id: &str) -> bool {
        self.pending.contains(id)
    }

    /// How many extensions can be called.
    pub fn len(&self) -> usize {
        self.extensions.len()
    }

    /// Whether no extension can be called.
    pub fn is_empty(&self) -> bool {
        self.extensions.is_empty()
    }
}
