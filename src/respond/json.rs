//! JSON documents as responses.

use http::StatusCode;
use serde::Serialize;

use super::{
    body::Response,
    failure::failure,
    plain::{JSON, with_body},
};
use crate::failure::{ErrorCode, Failure};

/// A JSON document as a response.
pub fn json(status: StatusCode, document: &impl Serialize) -> Response {
    match serde_json::to_vec(document) {
        Ok(body) => with_body(status, JSON, body.into()),
        // Only a map with keys that are not strings fails to serialise; our documents have none.
        Err(error) => failure(Failure::new(ErrorCode::InternalError, error.to_string())),
    }
}
