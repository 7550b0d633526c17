//! Addresses that are checked, and the hosts that a policy may make the sidecar connect to.

use std::collections::HashSet;

use http::{
    Uri,
    uri::{Authority, Scheme},
};

/// Longest address in bytes.
const LONGEST: usize = 2_048;

/// Why an address is not checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidAddress {
    /// It is not a URL with a host.
    #[error("is not an absolute URL")]
    Syntax,
    /// It is neither `http` nor `https`.
    #[error("is neither http nor https")]
    Scheme,
    /// It has a user name or a password.
    #[error("holds a user name or a password")]
    Credentials,
    /// It is too long.
    #[error("is longer than {LONGEST} bytes")]
    TooLong,
    /// It is neither `host` nor `host:port`.
    #[error("is neither `host` nor `host:port`")]
    Host,
}

/// Parses the address of a check.
pub(super) fn parse(text: &str) -> Result<Uri, InvalidAddress> {
    if text.len() > LONGEST {
        return Err(InvalidAddress::TooLong);
    }
    let uri: Uri = text.parse().map_err(|_syntax| InvalidAddress::Syntax)?;
    let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else {
        return Err(InvalidAddress::Syntax);
    };
    if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS {
        return Err(InvalidAddress::Scheme);
    }
    if authority.as_str().contains('@') {
        return Err(InvalidAddress::Credentials);
    }
    match port(authority) {
        Some(_) if !authority.host().is_empty() => Ok(uri),
        _ => Err(InvalidAddress::Syntax),
    }
}

/// The port that an authority names; `Some(None)` if it names none, `None` if what it names is not a port.
fn port(authority: &Authority) -> Option<Option<u16>> {
    let after = authority.as_str().strip_prefix(authority.host())?;
    match after.strip_prefix(':') {
        None => after.is_empty().then_some(None),
        Some(port) => port.parse().ok().filter(|port| *port > 0).map(Some),
    }
}

fn host(authority: &Authority) -> String {
    authority.host().trim_end_matches('.').to_ascii_lowercase()
}

/// Hosts that are listed. Names are compared as texts, so another spelling of a listed address is not listed.
#[derive(Debug, Default)]
pub(super) struct Allowed {
    hosts: HashSet<(String, Option<u16>)>,
}

impl Allowed {
    /// Adds `host` or `host:port`.
    pub(super) fn add(&mut self, text: &str) -> Result<(), InvalidAddress> {
        if text.contains('@') {
            return Err(InvalidAddress::Credentials);
        }
        let authority: Authority = text.parse().map_err(|_syntax| InvalidAddress::Host)?;
        let port = port(&authority).ok_or(InvalidAddress::Host)?;
        let host = host(&authority);
        if host.is_empty() {
            return Err(InvalidAddress::Host);
        }
        self.hosts.insert((host, port));
        Ok(())
    }

    pub(super) fn permits(&self, uri: &Uri) -> bool {
        let Some(authority) = uri.authority() else {
            return false;
        };
        let usual = if uri.scheme() == Some(&Scheme::HTTPS) {
            443
        } else {
            80
        };
        let Some(port) = port(authority) else {
            return false;
        };
        let (host, port) = (host(authority), port.unwrap_or(usual));
        let listed = |port| self.hosts.contains(&(host.clone(), port));
        listed(Some(port)) || port == usual && listed(None)
    }

    pub(super) fn is_empty(&self) -> bool {
        self.hosts.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(hosts: &[&str]) -> Allowed {
        let mut allowed = Allowed::default();
        for host in hosts {
            allowed.add(host).unwrap();
        }
        allowed
    }

    #[test]
    fn only_a_plain_http_address_is_one() {
        for good in [
            "http://a",
            "https://a.example:8443/health?x=1",
            "http://127.0.0.1:80/",
            "http://[::1]:9/x",
        ] {
            assert!(parse(good).is_ok(), "{good}");
        }
        let long = format!("http://a/{}", "x".repeat(LONGEST));
        for bad in [
            "",
            "/health",
            "a.example",
            "a.example:80",
            "ftp://a/",
            "file:///etc/passwd",
            "gopher://a:70/",
            "http://",
            "http://:80/",
            "http://user:secret@a/",
            "http://a@b/",
            "http://a:0/",
            "http://a:99999/",
            "http://a:/",
            "http://a b/",
            "http://a\r\nhost: b/",
            &long,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_listed_host_is_asked_at_the_port_that_is_meant() {
        let list = allowed(&["API.example", "local.example:8080", "[::1]:9"]);
        for good in [
            "http://api.example/health",
            "https://Api.Example./x",
            "https://api.example:443/",
            "http://api.example:80",
            "http://local.example:8080/a?b",
            "https://local.example:8080",
            "http://[::1]:9/",
        ] {
            assert!(list.permits(&parse(good).unwrap()), "{good}");
        }
        for bad in [
            "http://api.example:8080/",
            "https://api.example:80/",
            "http://api.example:443/",
            "http://local.example/",
            "http://127.0.0.1/",
            "http://169.254.169.254/latest/meta-data",
            "http://xapi.example/",
            "http://api.example.evil/",
            "http://evil/api.example",
            "http://[::1]/",
            "http://2130706433/",
        ] {
            assert!(!list.permits(&parse(bad).unwrap()), "{bad}");
        }
        assert!(!Allowed::default().permits(&parse("http://api.example").unwrap()));
        for bad in ["", "http://a", "a/b", "a@b", "a:", "a:x", "*", ":80"] {
            let added = Allowed::default().add(bad);
            assert!(bad == "*" || added.is_err(), "{bad}");
        }
    }
}
