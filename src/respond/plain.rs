//! Responses with any body, or with none.

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};

use super::body::Response;

/// The content type of JSON.
pub const JSON: HeaderValue = HeaderValue::from_static("application/json");

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
