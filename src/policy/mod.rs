//! The policy language's documents and the names they are known by.
//!
//! A policy is kept exactly as HEIR stored it, byte for byte: deprecated and unknown fields included. Here its
//! bytes are checked to be one JSON object that every reader understands the same way.

mod document;
mod etag;
mod ids;

pub use document::{MAX_DEPTH, PolicyDocument, Problem, Severity};
pub use etag::ETag;
pub use ids::{InvalidId, MAX_ID_BYTES, PolicyId, TenantId, check_id};
