//! The health of all extensions. It is kept by id when a registry is exchanged.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use hashbrown::HashMap;

use super::extension::ExtensionHealth;

/// Health by the ids of extensions.
#[derive(Debug, Default)]
pub(in crate::extensions) struct HealthTable(Mutex<HashMap<Arc<str>, Arc<ExtensionHealth>>>);

impl HealthTable {
    /// The health of an extension.
    pub(in crate::extensions) fn of(&self, id: &str) -> Arc<ExtensionHealth> {
        self.lock().entry(id.into()).or_default().clone()
    }

    /// Forgets the extensions that are not registered any more.
    pub(in crate::extensions) fn retain(&self, is_registered: impl Fn(&str) -> bool) {
        self.lock().retain(|id, _| is_registered(id));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Arc<ExtensionHealth>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
