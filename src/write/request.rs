//! A write as every transport states it, and what becomes of it.

use bytes::Bytes;
use http::HeaderMap;

use crate::{heir::Replied, policy::ETag, snapshot::Key};

/// A write of one policy.
#[derive(Debug, Clone)]
pub struct WriteRequest {
    /// The policy.
    pub key: Key,
    /// What to do with it.
    pub change: Change,
    /// What must hold of HEIR's version; all of it.
    pub preconditions: Vec<Precondition>,
    /// Names the write, so that HEIR makes it once however often it is sent: 1 to 128 characters. Without a valid
    /// one, the write gets a key of its own.
    pub idempotency_key: Option<String>,
    /// Headers that HEIR receives as the caller sent them, without those that concern the caller's connection. Only a
    /// caller that speaks HTTP has any. Preconditions among them are sent in place of those above, which they repeat.
    pub forwarded_headers: HeaderMap,
}

/// What to do with a policy.
#[derive(Debug, Clone)]
pub enum Change {
    /// Store this document, byte for byte.
    Put(Bytes),
    /// Delete it.
    Delete,
}

/// What must hold of the version that HEIR has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Precondition {
    /// It is one of these. Where there is no version, it is none of them.
    Is(Versions),
    /// It is none of these.
    IsNot(Versions),
}

/// Versions of a policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Versions {
    /// Whichever there is.
    Any,
    /// Those with these tags.
    Tagged(Vec<ETag>),
}

impl Precondition {
    /// Whether it holds where this is the current version; `None`: there is none.
    pub(super) fn holds(&self, current: Option<&ETag>) -> bool {
        let named = |versions: &Versions| match (versions, current) {
            (_, None) => false,
            (Versions::Any, Some(_)) => true,
            (Versions::Tagged(tags), Some(current)) => tags.contains(current),
        };
        match self {
            Self::Is(versions) => named(versions),
            Self::IsNot(versions) => !named(versions),
        }
    }
}

/// What became of a write that was not refused here.
#[derive(Debug)]
pub enum WriteOutcome {
    /// HEIR had no such policy and has it now.
    Created(Made),
    /// HEIR has this version in place of another.
    Replaced(Made),
    /// HEIR has the policy no more.
    Deleted(Made),
    /// HEIR has answered and not made the write. Its answer says why: a precondition that does not hold, a policy that
    /// does not exist, a document that it does not take.
    Declined(Replied),
    /// HEIR is away; the journal has the write, and lookups here see it.
    Queued {
        /// What the write comes to once HEIR has it, as far as is known.
        effect: Effect,
        /// The tag of the document, `None` after a deletion.
        etag: Option<ETag>,
    },
}

/// A write that HEIR has made.
#[derive(Debug)]
pub struct Made {
    /// The tag of what HEIR now has; `None`: it has none.
    pub etag: Option<ETag>,
    /// HEIR's revision that the write made, where HEIR has revisions.
    pub revision: Option<u64>,
    /// HEIR's answer, for a caller that speaks HTTP.
    pub reply: Replied,
}

/// What a write comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// There was no such policy.
    Created,
    /// There was another version, or may have been.
    Replaced,
    /// There is no such policy any more.
    Deleted,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn preconditions_are_those_of_http() {
        let tag = |text| ETag::parse(text).unwrap();
        let (a, b) = (tag("\"a\""), tag("\"b\""));
        let only_a = || Versions::Tagged(vec![a.clone()]);
        for (precondition, none, at_a, at_b) in [
            (Precondition::Is(Versions::Any), false, true, true),
            (Precondition::Is(only_a()), false, true, false),
            (Precondition::Is(Versions::Tagged(vec![])), false, false, false),
            (Precondition::IsNot(Versions::Any), true, false, false),
            (Precondition::IsNot(only_a()), true, false, true),
        ] {
            let found = [None, Some(&a), Some(&b)].map(|current| precondition.holds(current));
            assert_eq!(found, [none, at_a, at_b], "{precondition:?}");
        }
    }
}
