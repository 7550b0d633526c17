//! Manifests: what an extension is, where its module lies, and what it may do, as its registry record says.

mod created_at;
mod directory;
mod fields;
mod limits;
mod module;
mod read;
mod types;

pub(in crate::extensions) use self::directory::ManifestDirectory;
pub use self::{
    directory::read_records,
    limits::ManifestLimits,
    module::{Module, ModuleSource},
    types::{ExtensionRecords, Instance, Manifest, ManifestKind, Release},
};
