//! The crate `mask-pii` as a post-processor.

beamline_extension_sdk::export!(post_processor: mask_pii::MaskPii);
