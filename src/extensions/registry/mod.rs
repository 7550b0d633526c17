//! The registry of a snapshot: which extensions can be called, and with what. It is built from manifests and from modules
//! that are here already, and exchanged together with the policies.

mod builder;
mod config_check;
mod extension;
mod index;
mod kept;
mod limits;
mod links;
mod switches;

pub(in crate::extensions) use self::{builder::RegistryBuilder, kept::KeptRecords};
pub use self::{
    config_check::{Checking, Judged},
    extension::{Extension, ManifestSource, Target, merged},
    index::Registry,
    limits::call_limits,
    links::Refusal,
};
