//! Headers that belong to one connection and must not cross a proxy (RFC 9110, section 7.6.1), and the mark that
//! detects a request that runs in a loop.

use http::{HeaderMap, HeaderName, HeaderValue, header};

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

/// Removes the headers of one connection: those known as such, and those that `Connection` lists.
pub(crate) fn strip_hop_by_hop(headers: &mut HeaderMap) {
    let listed: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .filter_map(|name| name.trim().parse().ok())
        // The framing of the body is set by this proxy, whatever a peer lists.
        .filter(|name| *name != header::CONTENT_LENGTH && *name != header::HOST)
        .collect();
    for name in HOP_BY_HOP.iter().chain(&listed) {
        headers.remove(name);
    }
    headers.remove("proxy-connection");
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
            ("connection", "upgrade, content-length"),
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
    fn a_request_that_comes_back_is_recognised() {
        let (ours, other) = (Via::new(), Via::new());
        let mut headers = HeaderMap::new();
        other.add(&mut headers);
        assert!(!ours.has_passed(&headers));
        ours.add(&mut headers);
        assert!(ours.has_passed(&headers) && other.has_passed(&headers));
    }
}
