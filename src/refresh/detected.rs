//! What is known about the HEIR that is connected to, until the connection is lost.

use std::{collections::HashMap, time::Instant};

use http::HeaderValue;

use super::outcome::RefreshError;
use crate::{
    heir::{Admission, HeirError, Level},
    policy::{ETag, PolicyId, TenantId},
    snapshot::{FetchStart, Position, Withheld},
};

/// What each element of the list that was activated last looked like, and the tag of the document that was then
/// fetched for it. An element need not be what a single `GET` answers, so it serves to see that a policy changed.
pub(super) type Fingerprints = HashMap<TenantId, HashMap<PolicyId, (u64, ETag)>>;

/// How one refresh is made.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pass {
    /// An operator has confirmed that many policies may be removed.
    pub(super) confirm: bool,
    /// Whether HEIR is asked although the breaker is open.
    pub(super) admission: Admission,
}

impl Pass {
    /// One of the refresh loop, for which no client waits: it finds out whether HEIR is back.
    pub(super) const OWN: Self = Self {
        confirm: false,
        admission: Admission::Always,
    };
}

/// What has been found out about HEIR since it was last connected to.
#[derive(Debug, Default)]
pub(super) struct Detected {
    pub(super) level: Option<Level>,
    /// HEIR answered a question for changes; otherwise it is not asked again until the next reconnect.
    pub(super) changes_refused: bool,
    /// The snapshot that was activated last, and no other.
    pub(super) committed: Option<Committed>,
    /// HEIR has listed a tenant: it can.
    pub(super) lists: bool,
    pub(super) fingerprints: Fingerprints,
    /// HEIR said that its history is another one; what it has is to be taken, and what was lost to be found.
    pub(super) history_broke: bool,
    /// When the last refresh that is complete began.
    pub(super) last_began: Option<Instant>,
}

/// A snapshot that HEIR gave and that was activated. "Not modified" since then means that memory is up to date only
/// if memory has not been modified since then either: a restored HEIR has old tags.
#[derive(Debug)]
pub(super) struct Committed {
    pub(super) etag: HeaderValue,
    pub(super) position: Position,
    pub(super) writes: FetchStart,
}

impl Detected {
    /// Remembers why changes could not be applied.
    pub(super) fn note_gap(&mut self, error: &RefreshError) {
        match error {
            RefreshError::Withheld(Withheld::OtherHistory)
            | RefreshError::Heir(HeirError::Gone { restored: true }) => {
                self.history_broke = true;
                // The same revision may name something else by now.
                self.committed = None;
            }
            RefreshError::Heir(error) if error.is_unsupported() => self.changes_refused = true,
            _ => {}
        }
    }

    pub(super) fn forget_level(&mut self) {
        self.level = None;
        self.changes_refused = false;
        self.lists = false;
    }
}
