//! Policies that a write would refuse and that came all the same: from HEIR itself, or from a file.
//!
//! Lookups get them as they are, for the Router judges for itself. Decisions keep the last good version.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::Policy;
use crate::policy::Problem;

/// What decisions are made by where a policy is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrokenPolicies {
    /// By its last good version, if there is one.
    LastGood,
    /// By what can be read of it.
    Take,
}

/// What is known of a broken policy besides its own mistakes, which are found again on demand.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Broken {
    /// What the extensions that it names have against their configurations. Warnings may be among it.
    pub(crate) of_extensions: Vec<Problem>,
    /// The last version that was not broken, where there was one.
    pub(crate) last_good: Option<Arc<Policy>>,
    /// An extension that it names was not asked about it yet: it may turn out to be broken.
    pub(crate) is_unasked: bool,
}

impl Broken {
    /// Nothing that would have to be kept.
    pub(super) fn is_empty(&self) -> bool {
        self.of_extensions.is_empty() && self.last_good.is_none() && !self.is_unasked
    }
}

/// A policy as it was found, and why a write of it would be refused.
#[derive(Debug, Clone)]
pub struct BrokenPolicy {
    policy: Arc<Policy>,
    known: Broken,
}

impl BrokenPolicy {
    pub(super) fn new(policy: Arc<Policy>, known: Broken) -> Self {
        Self { policy, known }
    }

    /// The last version that was not broken.
    pub fn last_good(&self) -> Option<&Arc<Policy>> {
        self.known.last_good.as_ref()
    }

    /// Everything that is wrong with it, and odd about it.
    pub fn problems(&self) -> Vec<Problem> {
        let mut problems = self.policy.notes();
        problems.extend_from_slice(&self.known.of_extensions);
        problems
    }
}
