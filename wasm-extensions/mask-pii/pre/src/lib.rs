//! The crate `mask-pii` as a pre-processor.

beamline_extension_sdk::export!(pre_processor: mask_pii::MaskPii);
