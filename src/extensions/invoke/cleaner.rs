//! Cleans the instances of calls that are over.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::extensions::sandbox::SpentStore;

/// How many instances are cleaned later at a time: those of two decisions or so.
const MAX_LATER: usize = 8;

/// Cleans instances once the answer is sent, which then need not wait for it.
#[derive(Debug, Default)]
pub(super) struct Cleaner {
    waiting: Arc<AtomicUsize>,
}

impl Cleaner {
    /// Cleans an instance later, or at once where many wait already: for many calls it is faster to use the same places
    /// again while they are in the processor's caches.
    pub(super) fn clean(&self, spent: SpentStore) {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_LATER {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let waiting = self.waiting.clone();
        tokio::spawn(async move {
            drop(spent);
            waiting.fetch_sub(1, Ordering::Relaxed);
        });
    }
}
