//! Headers that belong to one connection and must not cross a proxy (RFC 9110, section 7.6.1), and the mark that
//! detects a request that runs in a loop.

use http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::failure::{ErrorCode, Failure};

const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// Headers whose meaning is the same for everyone on the way. A peer that lists one of them in `Connection` would have it
/// removed: a write without its precondition, a request without its sender.
const END_TO_END: [HeaderName; 30] = [
    header::ACCEPT,
    header::ACCEPT_ENCODING,
    header::AGE,
    header::AUTHORIZATION,
    header::CACHE_CONTROL,
    header::CONTENT_ENCODING,
    header::CONTENT_LENGTH,
    header::CONTENT_RANGE,
    header::CONTENT_TYPE,
    header::COOKIE,
    header::DATE,
    header::ETAG,
    header::EXPECT,
    header::EXPIRES,
    header::FORWARDED,
    header::HOST,
    header::IF_MATCH,
    header::IF_MODIFIED_SINCE,
    header::IF_NONE_MATCH,
    header::IF_RANGE,
    header::IF_UNMODIFIED_SINCE,
    header::LAST_MODIFIED,
    header::LOCATION,
    header::ORIGIN,
    header::RANGE,
    header::RETRY_AFTER,
    header::SET_COOKIE,
    header::VARY,
    header::VIA,
    header::WWW_AUTHENTICATE,
];

/// Those that the platform and tracing add; of some, every name that begins like this.
const ALSO_END_TO_END: [&str; 9] = [
    "baggage",
    "idempotency-key",
    "traceparent",
    "tracestate",
    "x-beamline-",
    "x-forwarded-",
    "x-heir-",
    "x-request-id",
    "x-tenant-id",
];

fn is_end_to_end(name: &HeaderName) -> bool {
    let also = |known: &&str| name.as_str().starts_with(known);
    END_TO_END.contains(name) || ALSO_END_TO_END.iter().any(also)
}

/// The names that `Connection` lists.
fn listed(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter();
    values
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect()
}

/// Removes the headers of one connection: those known as such, and those that `Connection` lists.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed = listed(headers);
    let listed = listed.iter().filter(|name| !is_end_to_end(name));
    for name in HOP_BY_HOP.iter().chain(listed) {
        headers.remove(name);
    }
    headers.remove("proxy-connection");
}

/// As [`strip_hop_by_hop`], for a request: one that wants a header removed which HEIR has to see is refused, because a
/// proxy before this one may or may not have done so.
///
/// # Errors
/// `invalid_request` names the header.
pub(crate) fn strip_hop_by_hop_of_request(headers: &mut HeaderMap) -> Result<(), Failure> {
    if let Some(name) = listed(headers).iter().find(|name| is_end_to_end(name)) {
        let message = format!("connection lists {name}, which is not a header of one connection");
        return Err(Failure::new(ErrorCode::InvalidRequest, message).closing());
    }
    strip_hop_by_hop(headers);
    Ok(())
}

/// This process's mark in the `Via` header.
#[derive(Debug)]
pub struct Via {
    pseudonym: String,
    value: HeaderValue,
}

impl Via {
    #[expect(
        clippy::new_without_default,
        reason = "every mark is different, which a default should not be"
    )]
    /// A mark that no other process has.
    pub fn new() -> Self {
        let pseudonym = format!("beamline-sidecar-{:08x}", fastrand::u32(..));
        let value = HeaderValue::from_str(&format!("1.1 {pseudonym}"));
        Self {
            pseudonym,
            value: value.unwrap_or_else(|_| HeaderValue::from_static("1.1 beamline-sidecar")),
        }
    }

    pub(super) fn has_passed(&self, headers: &HeaderMap) -> bool {
        let mut values = headers
            .get_all(header::VIA)
            .iter()
            .filter_map(|value| value.to_str().ok());
        values.any(|value| value.contains(&self.pseudonym))
    }

    pub(super) fn add(&self, headers: &mut HeaderMap) {
        headers.append(header::VIA, self.value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_end_to_end_headers_cross() {
        let mut headers = HeaderMap::new();
        for (name, value) in [
            ("connection", "close, x-secret-hop"),
            ("connection", "upgrade, content-length, X-Tenant-Id"),
            ("upgrade", "websocket"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("proxy-connection", "keep-alive"),
            ("keep-alive", "timeout=5"),
            ("x-secret-hop", "1"),
            ("content-length", "3"),
            ("x-tenant-id", "acme"),
            ("traceparent", "00-1-2-01"),
        ] {
            headers.append(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        strip_hop_by_hop(&mut headers);
        let mut left: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["content-length", "traceparent", "x-tenant-id"]);
    }

    #[test]
    fn a_request_that_wants_an_end_to_end_header_removed_is_refused() {
        for (listed, refused) in [
            ("if-match", true),
            ("close, If-None-Match", true),
            ("x-beamline-seed", true),
            ("x-tenant-id", true),
            ("content-length", true),
            ("host", true),
            ("close, te, keep-alive, upgrade", false),
            ("x-their-own", false),
            ("", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONNECTION, HeaderValue::from_static(listed));
            headers.insert(header::IF_MATCH, HeaderValue::from_static("\"a\""));
            assert_eq!(
                strip_hop_by_hop_of_request(&mut headers).is_err(),
                refused,
                "{listed}"
            );
            assert!(headers.contains_key(header::IF_MATCH), "{listed}");
        }
    }

    #[test]
    fn a_request_that_comes_back_is_recognised() {
        let (ours, other) = (Via::new(), Via::new());
        let mut headers = HeaderMap::new();
        other.add(&mut headers);
        assert!(!ours.has_passed(&headers));
        ours.add(&mut headers);
        assert!(ours.has_passed(&headers) && other.has_passed(&headers));
    }
}
