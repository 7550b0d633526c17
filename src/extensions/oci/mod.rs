//! Artifacts in OCI registries: how they are named, what their manifests say, and how a registry is spoken to.
//!
//! The client is this one, over the HTTP stack that the process has already, and not a crate: those that are kept up bring
//! a second HTTP client and its TLS settings with them, follow redirections to wherever a registry points, and have no
//! limit on what comes back. What a sidecar fetches goes through the same limits and the same list of hosts as `https:`.

mod access;
mod authorization;
mod client;
mod credentials;
mod manifest;
mod reference;

pub use self::{
    access::{Access, RegistriesConfig},
    client::{Pushed, Registries, RegistryClient, referrers_tag},
    credentials::Credentials,
    manifest::{Descriptor, ImageIndex, ImageManifest, Layout, media},
    reference::{Artifact, Reference, Repository},
};
pub use super::web::{Trouble, WebError};
