//! Who may see and change what the admin listener offers.

use std::{fs, io, path::PathBuf};

use arc_swap::ArcSwap;
use http::{HeaderMap, Method, header};
use secrecy::{ExposeSecret, SecretSlice};
use subtle::ConstantTimeEq;

use super::config::AdminConfig;
use crate::{
    failure::{ErrorCode, Failure},
    listener::Peer,
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
    /// `None`: no token is configured, and only clients on this machine are admitted.
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
                    .is_some_and(|old| equal(old, token.expose_secret()));
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
                let mut given = headers.get_all(header::AUTHORIZATION).iter();
                let bearer = given.next().and_then(|value| bearer(value.as_bytes()));
                if given.next().is_none() && bearer.is_some_and(|bearer| equal(token, bearer)) {
                    return Ok(());
                }
                Err(Failure::new(
                    ErrorCode::Unauthorized,
                    "send the token of admin.token_file: Authorization: Bearer …",
                ))
            }
            None if peer.is_some_and(Peer::is_local) && names_this_machine(headers) => Ok(()),
            None => Err(Failure::new(
                ErrorCode::Forbidden,
                "without admin.token_file this is for clients on this machine only",
            )),
        }
    }
}

/// A web page in a browser on this machine could reach the listener by a name of its own; it cannot change what the
/// browser sends as `Host`.
fn names_this_machine(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST) else {
        return true;
    };
    let host = host.to_str().unwrap_or("?");
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let name = name.trim_matches(['[', ']']);
    name == "localhost" || name.parse::<std::net::IpAddr>().is_ok()
}

/// The token of the scheme `Bearer`, whose name has no case (RFC 9110, section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(b"Bearer ".len())?;
    scheme.eq_ignore_ascii_case(b"Bearer ").then_some(token)
}

fn equal(token: &SecretSlice<u8>, given: &[u8]) -> bool {
    token.expose_secret().ct_eq(given).into()
}

fn read(file: &PathBuf) -> io::Result<SecretSlice<u8>> {
    let content = fs::read(file)?;
    match content.trim_ascii() {
        [] => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("{} is empty", file.display()),
        )),
        token => Ok(SecretSlice::from(token.to_vec())),
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!(ask(&access, "127.0.0.1:1", &[]), None);
        assert_eq!(ask(&access, "[::1]:1", &[("host", "localhost:9901")]), None);
        assert_eq!(
            ask(&access, "[::ffff:127.0.0.1]:1", &[("host", "127.0.0.1:9901")]),
            None
        );
        assert_eq!(
            ask(&access, "10.0.0.1:1", &[("host", "localhost")]),
            Some("forbidden")
        );
        assert_eq!(
            ask(&access, "127.0.0.1:1", &[("host", "rebound.example:9901")]),
            Some("forbidden")
        );
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
        assert_eq!(with("Bearer s3cret"), None);
        assert_eq!(with("bearer s3cret"), None, "the name of a scheme has no case");
        for wrong in [
            "Bearer s3cre",
            "Bearer s3crett",
            "bearer",
            "bearers3cret",
            "Bearer  s3cret",
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
