//! HEIR's base URL: fixed at the start, so nothing that HEIR or a client says can lead a request elsewhere.

use std::net::{IpAddr, SocketAddr};

use http::{
    Uri,
    uri::{Authority, PathAndQuery, Scheme},
};

/// `http://host:port`, with an optional path in front of the API's.
#[derive(Debug, Clone)]
pub struct BaseUrl {
    scheme: Scheme,
    authority: Authority,
    prefix: String,
}

/// Why a text is no base URL.
#[derive(Debug, thiserror::Error)]
pub enum InvalidBaseUrl {
    /// It is not a URL.
    #[error("`{0}` is not a URL")]
    Syntax(String),
    /// It is neither `http` nor `https`.
    #[error("`{0}` is neither http nor https")]
    Scheme(String),
    /// It has a user name or a password.
    #[error("the URL holds a user name or a password, which belong in heir.token_file")]
    Credentials,
    /// It has a query.
    #[error("`{0}` has a query, which a base URL cannot have")]
    Query(String),
}

impl BaseUrl {
    /// Parses a URL.
    ///
    /// # Errors
    /// When the text is no `http` or `https` URL, or has credentials or a query.
    pub fn parse(text: &str) -> Result<Self, InvalidBaseUrl> {
        let invalid = |make: fn(String) -> InvalidBaseUrl| {
            // What stands before an `@` may be a password; no error repeats it, whatever else is wrong.
            if text.contains('@') {
                InvalidBaseUrl::Credentials
            } else {
                make(text.to_owned())
            }
        };
        let uri: Uri = text.parse().map_err(|_syntax| invalid(InvalidBaseUrl::Syntax))?;
        let parts = uri.into_parts();
        let (Some(scheme), Some(authority)) = (parts.scheme, parts.authority) else {
            return Err(invalid(InvalidBaseUrl::Syntax));
        };
        if scheme != Scheme::HTTP && scheme != Scheme::HTTPS {
            return Err(invalid(InvalidBaseUrl::Scheme));
        }
        if authority.as_str().contains('@') {
            return Err(InvalidBaseUrl::Credentials);
        }
        let path = parts
            .path_and_query
            .unwrap_or_else(|| PathAndQuery::from_static("/"));
        if path.query().is_some() {
            return Err(invalid(InvalidBaseUrl::Query));
        }
        Ok(Self {
            scheme,
            authority,
            prefix: path.path().trim_end_matches('/').to_owned(),
        })
    }

    /// Whether HEIR is spoken to over TLS.
    pub fn is_tls(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// Host and port, as the URL names them.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// HEIR's name. `None`: it is known by its address.
    pub fn host_name(&self) -> Option<&str> {
        let host = self.authority.host();
        let is_address = host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok();
        (!is_address).then_some(host)
    }

    /// The URL of one path, which begins with `/` and may have a query.
    pub fn join(&self, path_and_query: &str) -> Result<Uri, http::Error> {
        Uri::builder()
            .scheme(self.scheme.clone())
            .authority(self.authority.clone())
            .path_and_query(format!("{}{path_and_query}", self.prefix))
            .build()
    }

    /// Whether a listener that is bound to this address answers for the URL.
    pub fn is_at(&self, address: SocketAddr) -> bool {
        let port = self
            .authority
            .port_u16()
            .unwrap_or(if self.is_tls() { 443 } else { 80 });
        if port != address.port() || port == 0 {
            return false;
        }
        let host = self.authority.host().trim_matches(['[', ']']);
        match host.parse::<IpAddr>() {
            Ok(ip) => {
                ip == address.ip()
                    || ip.is_unspecified()
                    || (ip.is_loopback() && address.ip().is_unspecified())
            }
            Err(_name) => {
                host.eq_ignore_ascii_case("localhost")
                    && (address.ip().is_loopback() || address.ip().is_unspecified())
            }
        }
    }
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}{}", self.scheme, self.authority, self.prefix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_parsed_and_joined() {
        for (text, joined) in [
            ("http://127.0.0.1:8090", "http://127.0.0.1:8090/api?x=1"),
            ("http://heir/", "http://heir/api?x=1"),
            (
                "https://heir.example:8443/base/",
                "https://heir.example:8443/base/api?x=1",
            ),
        ] {
            assert_eq!(BaseUrl::parse(text).unwrap().join("/api?x=1").unwrap(), joined);
        }
        for bad in [
            "",
            "heir",
            "127.0.0.1:8090",
            "/x",
            "ftp://x",
            "http://u:p@heir",
            "http://heir?x=1",
            "http://",
        ] {
            assert!(BaseUrl::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_address_is_no_name() {
        for (url, name) in [
            ("http://heir.ns.svc:8090", Some("heir.ns.svc")),
            ("http://10.0.0.1:8090", None),
            ("http://[::1]:8090", None),
        ] {
            assert_eq!(BaseUrl::parse(url).unwrap().host_name(), name, "{url}");
        }
    }

    #[test]
    fn the_own_listener_is_recognised() {
        let listen = "127.0.0.1:8080".parse().unwrap();
        for own in [
            "http://127.0.0.1:8080",
            "http://localhost:8080/x",
            "http://0.0.0.0:8080",
        ] {
            assert!(BaseUrl::parse(own).unwrap().is_at(listen), "{own}");
        }
        for other in ["http://127.0.0.1:8090", "http://heir:8080", "https://localhost"] {
            assert!(!BaseUrl::parse(other).unwrap().is_at(listen), "{other}");
        }
    }
}
