//! A validator that refuses messages with personal data. The same in Rust (here), JavaScript
//! (`../js/pii-guard`) and Python (`../python/pii-guard`): `../tests/pii-guard.yaml` holds for all.

pub mod guard;

pub use guard::PiiGuard;

beamline_extension_sdk::export!(validator: PiiGuard);
