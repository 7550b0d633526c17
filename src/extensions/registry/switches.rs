//! Extensions that an operator switched off.

use std::{
    collections::BTreeSet,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::SeqCst},
    },
};

/// The ids of extensions that are off, whatever their records say, until this process ends.
#[derive(Debug, Default)]
pub(super) struct Switches {
    off: Mutex<BTreeSet<String>>,
    /// How often one was switched.
    times: AtomicU64,
}

impl Switches {
    /// Switches an extension on or off. Returns whether that changed anything.
    pub(super) fn set(&self, id: &str, on: bool) -> bool {
        let mut off = self.off.lock().unwrap_or_else(PoisonError::into_inner);
        self.times.fetch_add(1, SeqCst);
        if on {
            off.remove(id)
        } else {
            off.insert(id.to_owned())
        }
    }

    pub(super) fn is_off(&self, id: &str) -> bool {
        let off = self.off.lock().unwrap_or_else(PoisonError::into_inner);
        off.contains(id)
    }

    /// How often one was switched.
    pub(super) fn times(&self) -> u64 {
        self.times.load(SeqCst)
    }
}
