//! Extensions that an operator switched off.

use std::{
    collections::BTreeSet,
    sync::{Mutex, PoisonError},
};

/// The ids of extensions that are off, whatever their records say, until this process ends.
#[derive(Debug, Default)]
pub(super) struct Switches(Mutex<BTreeSet<String>>);

impl Switches {
    /// Switches an extension on or off. Returns whether that changed anything.
    pub(super) fn set(&self, id: &str, on: bool) -> bool {
        let mut off = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if on {
            off.remove(id)
        } else {
            off.insert(id.to_owned())
        }
    }

    pub(super) fn is_off(&self, id: &str) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).contains(id)
    }
}
