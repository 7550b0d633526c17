//! Who may see and change what the admin listener offers.

use std::{
    io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use arc_swap::ArcSwap;
use http::{HeaderMap, HeaderValue, Method, header};
use secrecy::{ExposeSecret, SecretSlice};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::config::AdminConfig;
use crate::{
    failure::{ErrorCode, Failure},
    listener::Peer,
    plain_file,
};

/// The whole list of what is open to every client, for reading only. Paths are compared exactly, so that no path can
/// pretend to be one of them.
pub(super) const OPEN: [&str; 3] = ["/live", "/ready", "/metrics"];

/// Whether a request needs no authorisation.
pub(super) fn is_open(method: &Method, path: &str) -> bool {
    matches!(*method, Method::GET | Method::HEAD) && OPEN.contains(&path)
}

/// The check of everything that is not open.
#[derive(Debug)]
pub struct Access {
    file: PathBuf,
    /// The token's digest. `None`: no token is configured, and only clients on this machine are admitted.
    token: ArcSwap<Option<SecretSlice<u8>>>,
}

impl Access {
    /// Reads the token.
    ///
    /// # Errors
    /// The token's file cannot be read, or is empty.
    pub fn load(config: &AdminConfig) -> io::Result<Self> {
        let file = config.token_file.clone();
        let token = if file.as_os_str().is_empty() {
            None
        } else {
            Some(read(&file)?)
        };
        Ok(Self {
            file,
            token: ArcSwap::from_pointee(token),
        })
    }

    /// Applies a changed token. One that cannot be used leaves the old one in force.
    pub fn reread(&self) {
        if self.file.as_os_str().is_empty() {
            return;
        }
        match read(&self.file) {
            Ok(token) => {
                let same = (**self.token.load())
                    .as_ref()
                    .is_some_and(|old| old.expose_secret() == token.expose_secret());
                if !same {
                    self.token.store(std::sync::Arc::new(Some(token)));
                    tracing::info!("Applied the changed admin.token_file.");
                }
            }
            Err(error) => tracing::warn!(%error, "admin.token_file cannot be used; the old token stays."),
        }
    }

    /// Whether a client may go on: by the token where one is configured, else by being on this machine.
    ///
    /// # Errors
    /// `unauthorized`: no token, or not the right one. `forbidden`: there is no token, and the client is elsewhere.
    pub(super) fn check(&self, headers: &HeaderMap, peer: Option<Peer>) -> Result<(), Failure> {
        match &**self.token.load() {
            Some(token) => {
                // One path for every way to be wrong: none is told from another, by words or by time.
                let mut given = headers.get_all(header::AUTHORIZATION).iter();
                let right = equal(token, given.next().map_or(b"", bearer));
                if right & given.next().is_none() {
                    return Ok(());
                }
                Err(Failure::new(
                    ErrorCode::Unauthorized,
                    "send the token of admin.token_file: Authorization: Bearer …",
                ))
            }
            None => match foreign(headers, peer) {
                None => Ok(()),
                Some(why) => Err(Failure::new(
                    ErrorCode::Forbidden,
                    format!("without admin.token_file this is for clients on this machine only: {why}"),
                )),
            },
        }
    }
}

/// What a header gives as a bearer token; nothing, where it is of another form.
fn bearer(value: &HeaderValue) -> &[u8] {
    let value = value.as_bytes();
    match value.split_at_checked(b"Bearer ".len()) {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case(b"Bearer ") => token,
        _ => b"",
    }
}

/// Why a request does not come from a client on this machine. That a connection comes from here says little: the proxy
/// of a service mesh connects from here for all the world, and so does a browser for every page that it shows.
fn foreign(headers: &HeaderMap, peer: Option<Peer>) -> Option<&'static str> {
    let near = match peer {
        Some(Peer::Unix) => true,
        // Not the whole of 127.0.0.0/8, of which proxies have addresses of their own.
        Some(Peer::Tcp(address)) => {
            let ip = address.ip().to_canonical();
            ip == IpAddr::from([127, 0, 0, 1]) || ip == IpAddr::from(1_u128.to_be_bytes())
        }
        None => false,
    };
    if !near {
        return Some("the connection comes from elsewhere");
    }
    if headers.keys().any(|name| was_forwarded(name.as_str())) {
        return Some("a proxy has forwarded the request");
    }
    let only = |name| {
        let mut values = headers.get_all(name).iter();
        let value = values.next().map(|value| value.to_str().unwrap_or("?"));
        value.filter(|_| values.next().is_none()).ok_or(value.is_some())
    };
    // A page of another host could reach the listener by a name of its own; it cannot change what the browser says.
    let host = match only(header::HOST) {
        Ok(host) if names_this_machine(host) => host,
        Err(false) if matches!(peer, Some(Peer::Unix)) => "",
        _ => return Some("Host is neither localhost nor a loopback address"),
    };
    let same_origin = |origin: &str| {
        let authority = origin
            .strip_prefix("http://")
            .or_else(|| origin.strip_prefix("https://"));
        authority == Some(host)
    };
    let own_page = |site: &str| matches!(site, "same-origin" | "none");
    let asked_by_a_page = !only(header::ORIGIN).map_or_else(|given| !given, same_origin)
        || !only(header::HeaderName::from_static("sec-fetch-site")).map_or_else(|given| !given, own_page);
    asked_by_a_page.then_some("a web page of another origin has asked for it")
}

fn was_forwarded(name: &str) -> bool {
    matches!(name, "forwarded" | "via" | "x-real-ip")
        || name.starts_with("x-forwarded-")
        || name.starts_with("x-envoy-")
}

fn names_this_machine(host: &str) -> bool {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    let is_loopback = |ip: IpAddr| ip.to_canonical().is_loopback();
    name.eq_ignore_ascii_case("localhost") || name.parse().is_ok_and(is_loopback)
}

/// Of digests, which all have one length.
fn equal(token: &SecretSlice<u8>, given: &[u8]) -> bool {
    let given = Sha256::digest(given);
    token.expose_secret().ct_eq(given.as_slice()).into()
}

/// The digest of the token in a file.
fn read(file: &Path) -> io::Result<SecretSlice<u8>> {
    let content = plain_file::read(file)?;
    match content.trim_ascii() {
        [] => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is empty", file.display()),
        )),
        token => Ok(SecretSlice::from(Sha256::digest(token).to_vec())),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn ask(access: &Access, peer: &str, headers: &[(&str, &str)]) -> Option<&'static str> {
        let mut request = http::Request::builder();
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let peer = Peer::Tcp(peer.parse().unwrap());
        access
            .check(request.body(()).unwrap().headers(), Some(peer))
            .err()
            .map(|failure| failure.code.as_str())
    }

    #[test]
    fn without_a_token_only_this_machine_is_admitted() {
        let access = Access::load(&AdminConfig::default()).unwrap();
        for (peer, host) in [
            ("127.0.0.1:1", "127.0.0.1:9901"),
            ("[::1]:1", "localhost:9901"),
            ("[::1]:1", "[::1]:9901"),
            ("[::1]:1", "[::1]"),
            ("[::ffff:127.0.0.1]:1", "127.0.0.1"),
            ("127.0.0.1:1", "LOCALHOST"),
        ] {
            assert_eq!(ask(&access, peer, &[("host", host)]), None, "{peer} {host}");
        }
        for (peer, host) in [
            ("10.0.0.1:1", "localhost"),
            // What the proxy of a service mesh looks like, whatever its client has called the sidecar.
            ("127.0.0.6:1", "10.4.7.9:9901"),
            ("127.0.0.6:1", "localhost:9901"),
            ("127.0.0.1:1", "10.4.7.9:9901"),
            ("127.0.0.1:1", "0.0.0.0:9901"),
            ("[::1]:1", "[fd00::1]:9901"),
            ("127.0.0.1:1", "rebound.example:9901"),
            ("127.0.0.1:1", "localhost.rebound.example"),
            ("127.0.0.1:1", ""),
        ] {
            let code = ask(&access, peer, &[("host", host)]);
            assert_eq!(code, Some("forbidden"), "{peer} {host}");
        }
        assert_eq!(ask(&access, "127.0.0.1:1", &[]), Some("forbidden"));
        let twice = [("host", "localhost"), ("host", "rebound.example")];
        assert_eq!(ask(&access, "127.0.0.1:1", &twice), Some("forbidden"));
    }

    #[test]
    fn without_a_token_no_proxy_and_no_web_page_is_admitted() {
        let access = Access::load(&AdminConfig::default()).unwrap();
        let with = |name, value| {
            ask(
                &access,
                "127.0.0.1:1",
                &[("host", "localhost:9901"), (name, value)],
            )
        };
        for (name, value) in [
            ("forwarded", "for=10.4.7.9"),
            ("x-forwarded-for", "10.4.7.9"),
            ("x-forwarded-client-cert", "By=spiffe://x"),
            ("x-envoy-internal", "true"),
            ("x-real-ip", "10.4.7.9"),
            ("via", "1.1 edge"),
            ("origin", "https://evil.example"),
            ("origin", "http://localhost:3000"),
            ("origin", "http://localhost:9901.evil.example"),
            ("origin", "null"),
            ("origin", ""),
            ("sec-fetch-site", "cross-site"),
            ("sec-fetch-site", "same-site"),
            ("sec-fetch-site", "Same-Origin, cross-site"),
        ] {
            assert_eq!(with(name, value), Some("forbidden"), "{name}: {value}");
        }
        for (name, value) in [
            ("origin", "http://localhost:9901"),
            ("sec-fetch-site", "same-origin"),
            ("sec-fetch-site", "none"),
            ("x-request-id", "1"),
        ] {
            assert_eq!(with(name, value), None, "{name}: {value}");
        }
        let twice = [
            ("host", "localhost"),
            ("origin", "http://localhost"),
            ("origin", "http://evil.example"),
        ];
        assert_eq!(ask(&access, "127.0.0.1:1", &twice), Some("forbidden"));
    }

    #[test]
    fn the_token_is_demanded_and_can_be_exchanged() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("token");
        fs::write(&file, "s3cret\n").unwrap();
        let access = Access::load(&AdminConfig {
            token_file: file.clone(),
            ..AdminConfig::default()
        })
        .unwrap();
        let with = |token: &str| ask(&access, "10.0.0.1:1", &[("authorization", token)]);
        for right in ["Bearer s3cret", "bearer s3cret", "BEARER s3cret"] {
            assert_eq!(with(right), None, "{right}");
        }
        // With a token it does not matter whence a request comes.
        let page = [
            ("authorization", "Bearer s3cret"),
            ("host", "admin.example"),
            ("origin", "https://ops.example"),
            ("x-forwarded-for", "10.4.7.9"),
        ];
        assert_eq!(ask(&access, "10.0.0.1:1", &page), None);
        assert_eq!(
            ask(&access, "127.0.0.1:1", &[("host", "localhost")]),
            Some("unauthorized")
        );
        for wrong in [
            "Bearer s3cre",
            "Bearer s3crett",
            "bearer",
            "bearers3cret",
            "s3cret",
            "Basic s3cret",
            "",
        ] {
            assert_eq!(with(wrong), Some("unauthorized"), "{wrong}");
        }
        let twice = [("authorization", "Bearer s3cret"), ("authorization", "Bearer x")];
        assert_eq!(ask(&access, "127.0.0.1:1", &twice), Some("unauthorized"));
        fs::write(&file, " \n").unwrap();
        access.reread();
        assert_eq!(with("Bearer s3cret"), None, "an empty token is not applied");
        fs::write(&file, "other").unwrap();
        access.reread();
        assert_eq!(with("Bearer s3cret"), Some("unauthorized"));
        assert_eq!(with("Bearer other"), None);
        assert!(!format!("{access:?}").contains("other"));
    }
}
