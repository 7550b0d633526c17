//! What `../../src` does, as a pre-processor.

beamline_extension_sdk::export!(pre_processor: misbehaving::Misbehaving);
