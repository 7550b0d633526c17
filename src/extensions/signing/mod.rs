//! Signatures of modules: keys, what a registry or a record has to show, and who has to have signed.
//!
//! Two kinds of keys are known, ECDSA over P-256 as cosign makes them, and Ed25519; and three kinds of signatures: one
//! over a module's bytes, which stands in its record, and the two that cosign puts beside an artifact of a registry, the
//! bundle and the older payload under a tag.

mod evidence;
mod found;
mod key;
#[cfg(feature = "compiler")]
mod secret;
mod trust;

#[cfg(feature = "compiler")]
pub use self::secret::{KeyKind, SecretKey};
pub use self::{
    evidence::{Evidence, bundle, simple},
    found::{find_signatures, signature_tag},
    key::{PublicKey, read_keys},
    trust::{KeySet, SignaturesConfig, TenantSignatures, Trust},
};
