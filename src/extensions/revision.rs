//! Counts the changes that a registry depends on, besides those of HEIR's records.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// A counter that the parts of the host share: each advances it when it has something new for the next registry.
#[derive(Debug, Clone)]
pub(super) struct Revision(Arc<AtomicU64>);

impl Revision {
    /// One that differs from the revision of an empty registry, which is 0.
    pub(super) fn new() -> Self {
        Self(Arc::new(AtomicU64::new(1)))
    }

    pub(super) fn advance(&self) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }

    pub(super) fn current(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }
}
