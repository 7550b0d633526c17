//! Policies that a write would refuse and that came all the same: from HEIR itself, or from a file.
//!
//! Lookups get them as they are, for whoever asks judges for itself. Decisions keep the last good version.

use std::sync::Arc;

use hashbrown::HashMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    key::{Key, Problems},
    policy::Policy,
};
use crate::policy::{Problem, errors};

/// What decisions are made by where a policy is broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum BrokenPolicies {
    /// By its last good version, if there is one.
    LastGood,
    /// By what can be read of it.
    Take,
}

/// The broken policies of a snapshot.
#[derive(Debug, Default)]
pub struct Broken {
    problems: Problems,
    last_good: HashMap<Key, Arc<Policy>>,
}

impl Broken {
    pub(super) fn new(problems: Problems, last_good: HashMap<Key, Arc<Policy>>) -> Self {
        Self { problems, last_good }
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.problems.is_empty()
    }

    /// What is wrong with each: against the policy language, or in the eyes of the extensions that it names. Warnings
    /// may be among it.
    pub fn problems(&self) -> &Problems {
        &self.problems
    }

    /// The last version of each that was not broken, where there was one.
    pub fn all_last_good(&self) -> &HashMap<Key, Arc<Policy>> {
        &self.last_good
    }

    /// The last good version of a policy.
    pub fn last_good(&self, key: &Key) -> Option<&Arc<Policy>> {
        self.last_good.get(key)
    }

    /// The errors of a policy. `None`: it is not broken.
    pub fn errors(&self, key: &Key) -> Option<Vec<&Problem>> {
        let problems = self.problems.get(key)?;
        let errors: Vec<_> = errors(problems).collect();
        (!errors.is_empty()).then_some(errors)
    }
}
