//! What `../../src` does, as a post-processor.

beamline_extension_sdk::export!(post_processor: misbehaving::Misbehaving);
