//! Checks that come before everything else: the sender and the length of a request must be unambiguous.

use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Version, header};

use crate::{
    failure::{ErrorCode, Failure},
    policy::check_id,
};

/// Who a request is from, or says it is for.
pub(super) const TENANT: HeaderName = HeaderName::from_static("x-tenant-id");

/// How a request says where its body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    /// By its length, or it has none.
    Told,
    /// In chunks. A length beside them would be hidden: the HTTP library removes it. So the connection ends with the
    /// answer, whatever follows on it.
    Chunked,
    /// Not at all, although its method is for requests that have one. The connection ends with the answer.
    Untold,
}

/// Refuses what two servers could read differently. Everything refused here ends the connection.
pub(super) fn check<B>(request: &Request<B>, max_body_bytes: usize) -> Result<Framing, Failure> {
    let named = Named::of(request.headers())?;
    named.check_identity(request.version())?;
    named.check_length(request.method(), max_body_bytes)
}

fn refuse(message: &str) -> Failure {
    Failure::new(ErrorCode::InvalidRequest, message).closing()
}

/// The headers that matter here, found in one walk: a handful of comparisons is cheaper than a look-up for each.
#[derive(Default)]
struct Named<'a> {
    host: Option<&'a HeaderValue>,
    tenant: Option<&'a HeaderValue>,
    authorization: Option<&'a HeaderValue>,
    content_length: Option<&'a HeaderValue>,
    transfer_encoding: Option<&'a HeaderValue>,
}

impl<'a> Named<'a> {
    fn of(headers: &'a HeaderMap) -> Result<Self, Failure> {
        let mut named = Self::default();
        for (name, value) in headers {
            let place = match name {
                name if name == header::HOST => &mut named.host,
                name if name == header::AUTHORIZATION => &mut named.authorization,
                name if name == header::CONTENT_LENGTH => &mut named.content_length,
                name if name == header::TRANSFER_ENCODING => &mut named.transfer_encoding,
                name if name == TENANT => &mut named.tenant,
                _ => continue,
            };
            if place.replace(value).is_some() {
                return Err(refuse(&format!("the header {name} is given twice")));
            }
        }
        Ok(named)
    }

    fn check_identity(&self, version: Version) -> Result<(), Failure> {
        match self.host {
            None if version > Version::HTTP_10 => return Err(refuse("the header host is missing")),
            Some(host) if host.as_bytes().contains(&b',') => {
                return Err(refuse("the header host holds more than one"));
            }
            _ => {}
        }
        if let Some(tenant) = self.tenant
            && !tenant.to_str().is_ok_and(|tenant| check_id(tenant).is_ok())
        {
            return Err(refuse("the header x-tenant-id is not one tenant id"));
        }
        match self.authorization {
            Some(value) if is_joined_bearer(value) => {
                Err(refuse("the header authorization holds more than one"))
            }
            _ => Ok(()),
        }
    }

    fn check_length(&self, method: &Method, max_body_bytes: usize) -> Result<Framing, Failure> {
        if let Some(encoding) = self.transfer_encoding {
            // A chunked body beside a length is how requests are smuggled.
            if self.content_length.is_none() && encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
                return Ok(Framing::Chunked);
            }
            let message = "send the body with a content-length, or with the transfer-encoding chunked alone";
            return Err(Failure::new(ErrorCode::LengthRequired, message).closing());
        }
        let Some(length) = self.content_length else {
            let writes = *method == Method::PUT || *method == Method::POST || *method == Method::PATCH;
            return Ok(if writes { Framing::Untold } else { Framing::Told });
        };
        // hyper has refused what is not a number.
        let length = length.to_str().ok().and_then(|text| text.parse::<u64>().ok());
        let length = length.ok_or_else(|| refuse("the content-length is no number"))?;
        if length > max_body_bytes as u64 {
            let message = format!(
                "the body has {length} bytes; at most {max_body_bytes} are taken (limits.max_body_bytes)"
            );
            return Err(Failure::new(ErrorCode::PayloadTooLarge, message).closing());
        }
        Ok(Framing::Told)
    }
}

impl Framing {
    /// Refuses a request that needs a body and does not say where it ends.
    pub(super) fn must_be_told(self) -> Result<(), Failure> {
        if self == Self::Untold {
            let message = "a body needs a content-length, or the transfer-encoding chunked";
            return Err(Failure::new(ErrorCode::LengthRequired, message).closing());
        }
        Ok(())
    }

    /// Whether the connection ends with the answer.
    pub(super) const fn closes(self) -> bool {
        !matches!(self, Self::Told)
    }
}

/// Other schemes have commas of their own.
fn is_joined_bearer(value: &HeaderValue) -> bool {
    let value = value.as_bytes();
    value.len() > 6 && value[..6].eq_ignore_ascii_case(b"bearer") && value.contains(&b',')
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
        let checked = check(&request, 100).and_then(|framing| framing.must_be_told());
        checked.err().map(|failure| failure.code.as_str())
    }

    #[test]
    fn chunks_and_an_untold_end_close_the_connection() {
        for (method, headers, expected) in [
            (Method::GET, vec![], Framing::Told),
            (Method::PUT, vec![("content-length", "2")], Framing::Told),
            (
                Method::PUT,
                vec![("transfer-encoding", "chunked")],
                Framing::Chunked,
            ),
            (
                Method::GET,
                vec![("transfer-encoding", "chunked")],
                Framing::Chunked,
            ),
            (Method::PATCH, vec![], Framing::Untold),
        ] {
            let mut request = Request::builder().method(method).header("host", "x");
            for (name, value) in headers {
                request = request.header(name, value);
            }
            let framing = check(&request.body(()).unwrap(), 100).unwrap();
            assert_eq!((framing, framing.closes()), (expected, expected != Framing::Told));
        }
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
            (vec![h, ("transfer-encoding", "Chunked")], None),
            (
                vec![h, ("transfer-encoding", "gzip, chunked")],
                Some("length_required"),
            ),
            (
                vec![h, ("transfer-encoding", "chunked, chunked")],
                Some("length_required"),
            ),
            (
                vec![h, ("transfer-encoding", "chunked"), ("content-length", "2")],
                Some("length_required"),
            ),
            (
                vec![
                    h,
                    ("transfer-encoding", "chunked"),
                    ("transfer-encoding", "chunked"),
                ],
                Some("invalid_request"),
            ),
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
