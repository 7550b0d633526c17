//! What a request must be before it is looked at: its sender and its length beyond doubt.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use crate::{
    policy::check_id,
    respond::{ErrorCode, Failure},
};

/// Who a request is from, or says it is for.
pub(super) const TENANT: HeaderName = HeaderName::from_static("x-tenant-id");

/// Refuses what two servers could read differently. Everything refused here ends the connection.
pub(super) fn check<B>(request: &Request<B>, body_bytes: usize) -> Result<(), Failure> {
    let headers = request.headers();
    check_identity(headers, request.version())?;
    check_length(headers, request.method(), body_bytes)
}

fn refuse(message: &str) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, message).closing()
}

fn check_identity(headers: &HeaderMap, version: Version) -> Result<(), Failure> {
    // Counting is all it takes as long as no name is repeated.
    if headers.len() != headers.keys_len() {
        for name in [
            header::HOST,
            header::AUTHORIZATION,
            TENANT,
            header::CONTENT_LENGTH,
        ] {
            if headers.get_all(&name).iter().nth(1).is_some() {
                return Err(refuse(&format!("the header {name} is given twice")));
            }
        }
    }
    match headers.get(header::HOST) {
        None if version > Version::HTTP_10 => return Err(refuse("the header host is missing")),
        Some(host) if host.as_bytes().contains(&b',') => {
            return Err(refuse("the header host holds more than one"));
        }
        _ => {}
    }
    if let Some(tenant) = headers.get(TENANT)
        && !tenant.to_str().is_ok_and(|tenant| check_id(tenant).is_ok())
    {
        return Err(refuse("the header x-tenant-id is not one tenant id"));
    }
    match headers.get(header::AUTHORIZATION) {
        Some(value) if is_joined_bearer(value) => Err(refuse("the header authorization holds more than one")),
        _ => Ok(()),
    }
}

/// Other schemes have commas of their own.
fn is_joined_bearer(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    value.len() > 6 && value[..6].eq_ignore_ascii_case(b"bearer") && value.contains(&b',')
}

fn check_length(headers: &HeaderMap, method: &Method, body_bytes: usize) -> Result<(), Failure> {
    let needed = |message: &str| Failure::new(ErrorCode::LengthRequired, message).closing();
    // A chunked body beside a length is how requests are smuggled; without chunked bodies there is no "beside".
    if headers.contains_key(header::TRANSFER_ENCODING) {
        return Err(needed(
            "send the body with a content-length, not with a transfer-encoding",
        ));
    }
    let Some(length) = headers.get(header::CONTENT_LENGTH) else {
        let writes = method == Method::PUT || method == Method::POST || method == Method::PATCH;
        return if writes {
            Err(needed("a body needs a content-length"))
        } else {
            Ok(())
        };
    };
    // hyper has refused what is not a number.
    let length: u64 = length
        .to_str()
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| refuse("the content-length is no number"))?;
    if length > body_bytes as u64 {
        let message =
            format!("the body has {length} bytes; at most {body_bytes} are taken (limits.body_bytes)");
        return Err(Failure::new(ErrorCode::PayloadTooLarge, message).closing());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(
        version: Version,
        method: &Method,
        headers: &[(&'static str, &'static str)],
    ) -> Option<&'static str> {
        let mut request = Request::new(());
        *request.version_mut() = version;
        *request.method_mut() = method.clone();
        for (name, value) in headers {
            request
                .headers_mut()
                .append(*name, HeaderValue::from_static(value));
        }
        check(&request, 100).err().map(|failure| failure.code.as_str())
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_refused() {
        let h = ("host", "x");
        for (headers, expected) in [
            (vec![h], None),
            (vec![h, ("accept", "a"), ("accept", "b")], None),
            (
                vec![h, ("x-tenant-id", "acme"), ("authorization", "Bearer abc")],
                None,
            ),
            (vec![h, ("authorization", "Digest a=\"b\", c=\"d\"")], None),
            (vec![], Some("invalid_request")),
            (vec![h, h], Some("invalid_request")),
            (vec![("host", "a, b")], Some("invalid_request")),
            (
                vec![h, ("x-tenant-id", "a"), ("x-tenant-id", "b")],
                Some("invalid_request"),
            ),
            (vec![h, ("x-tenant-id", "a,b")], Some("invalid_request")),
            (vec![h, ("x-tenant-id", "")], Some("invalid_request")),
            (
                vec![h, ("authorization", "Bearer a"), ("authorization", "Bearer b")],
                Some("invalid_request"),
            ),
            (
                vec![h, ("authorization", "Bearer a, Bearer b")],
                Some("invalid_request"),
            ),
            (vec![h, ("transfer-encoding", "chunked")], Some("length_required")),
            (vec![h, ("content-length", "100")], None),
            (vec![h, ("content-length", "101")], Some("payload_too_large")),
        ] {
            assert_eq!(
                code(Version::HTTP_11, &Method::GET, &headers),
                expected,
                "{headers:?}"
            );
        }
        assert_eq!(code(Version::HTTP_10, &Method::GET, &[]), None);
        assert_eq!(code(Version::HTTP_10, &Method::PUT, &[]), Some("length_required"));
        assert_eq!(code(Version::HTTP_11, &Method::DELETE, &[h]), None);
    }
}
