//! HEIR, the central policy store, as it is spoken to over HTTP.

pub mod wire;
