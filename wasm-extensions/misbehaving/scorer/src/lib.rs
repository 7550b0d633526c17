//! What `../../src` does, as a scorer.

beamline_extension_sdk::export!(scorer: misbehaving::Misbehaving);
