//! Decisions: over HTTP, from files of cases, and for every policy and request that can be generated.

mod clock;
mod conformance;
mod golden;
mod hostile;
pub(crate) mod model;
mod policy_files;
mod properties;
mod requests;
mod results;

pub(crate) use requests::{decide, outcome, request, with_policies};
