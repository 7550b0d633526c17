//! What `../../src` does, as a validator.

beamline_extension_sdk::export!(validator: misbehaving::Misbehaving);
