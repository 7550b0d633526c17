//! Outcomes as HTTP responses.

mod body;
mod failure;
mod json;
mod plain;

pub use body::{Body, BodyError, Response};
pub use failure::{DECISION_ID, HEIR_REVISION, SEED, failure, limit_headers, text};
pub use json::json;
pub use plain::{JSON, empty, with_body};
