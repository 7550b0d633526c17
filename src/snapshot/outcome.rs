//! What came of an attempt to take HEIR's state.

/// What an activation did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Activation {
    /// Policies that are new, or have another version.
    pub loaded: usize,
    /// Policies that are gone.
    pub removed: usize,
    /// The position went back, or HEIR does not have a write any more that it had acknowledged: it was restored
    /// from a backup.
    pub went_back: bool,
}

/// Why HEIR's state was not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Withheld {
    /// The shrink guard waits for a confirmation.
    #[error(
        "HEIR's answer would remove {removed} of {known} policies, more than refresh.max_removed_percent allows; \
         it is held back until HEIR gives the same answer again, or POST /admin/refresh?confirm=true"
    )]
    Shrink {
        /// Policies that would be gone.
        removed: usize,
        /// Policies that are known.
        known: usize,
    },
    /// The changes belong to another history than the snapshot.
    #[error("the changes continue another history than the one in memory")]
    OtherHistory,
    /// The changes begin at a position that the snapshot is not at any more.
    #[error("the snapshot has moved on since the changes were asked for")]
    Outdated,
}
