//! Outcomes as HTTP responses.

mod body;
mod failure;

pub use body::{Body, Response};
pub use failure::{DECISION_ID, HEIR_REVISION, SEED, failure, limit_headers, text};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::failure::{ErrorCode, Failure};

pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// A JSON document as a response.
pub fn json(status: StatusCode, document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(body) => with_body(status, JSON, body.into()),
        // Only a map with keys that are not strings fails to serialise; our documents have none.
        Err(error) => failure(Failure::new(ErrorCode::InternalError, error.to_string())),
    }
}

/// A response of this type with this body.
pub fn with_body(status: StatusCode, content_type: HeaderValue, body: Bytes) -> Response {
    let mut response = http::Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, content_type);
    response
}

/// A response without a body.
pub fn empty(status: StatusCode) -> Response {
    let mut response = http::Response::new(Bytes::new().into());
    *response.status_mut() = status;
    response
}
