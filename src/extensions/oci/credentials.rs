//! Who this process is to a registry. Passwords are in types that do not print them.

use std::{collections::HashMap, path::Path};

use base64::{Engine, prelude::BASE64_STANDARD};
use http::HeaderValue;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

use crate::plain_file;

/// Credentials, by registry.
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    by_host: HashMap<String, Login>,
    /// For any registry.
    any: Option<Login>,
}

#[derive(Debug, Clone)]
pub(super) enum Login {
    Password {
        user: String,
        password: SecretString,
    },
    /// There is one that this process cannot use.
    Unusable(&'static str),
}

/// Docker's `config.json`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    #[serde(default)]
    auths: HashMap<String, Entry>,
    #[serde(default)]
    cred_helpers: HashMap<String, String>,
    #[serde(default)]
    creds_store: String,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Entry {
    auth: Option<SecretString>,
    username: Option<String>,
    password: Option<SecretString>,
    identitytoken: Option<SecretString>,
}

impl Credentials {
    /// The same for every registry that asks.
    pub fn of(user: String, password: SecretString) -> Self {
        Self {
            by_host: HashMap::new(),
            any: Some(Login::Password { user, password }),
        }
    }

    /// Reads a file as Docker writes it.
    ///
    /// # Errors
    /// When it cannot be read; nothing of its content is in the reason.
    pub fn read(file: &Path) -> Result<Self, String> {
        let shown = file.display();
        let text = plain_file::read_to_string(file)
            .map(SecretString::from)
            .map_err(|error| format!("the credentials in {shown} cannot be read: {error}"))?;
        let read: File = serde_json::from_str(text.expose_secret()).map_err(|error| {
            // The message of a parser may repeat what it read.
            format!(
                "the credentials in {shown} are not JSON as Docker writes it: line {}, column {}",
                error.line(),
                error.column()
            )
        })?;
        let mut by_host = HashMap::new();
        for host in read.cred_helpers.keys() {
            by_host.insert(host_of(host), Login::Unusable(HELPER));
        }
        for (host, entry) in read.auths {
            let login = match entry.login() {
                Some(login) => login,
                None if read.creds_store.is_empty() => continue,
                None => Login::Unusable(HELPER),
            };
            by_host.insert(host_of(&host), login);
        }
        Ok(Self { by_host, any: None })
    }

    pub(super) fn for_host(&self, host: &str) -> Option<&Login> {
        self.any.as_ref().or_else(|| self.by_host.get(host))
    }
}

const HELPER: &str = "its credentials are with a helper program, which is not run: write them into auths";

impl Entry {
    fn login(self) -> Option<Login> {
        if self
            .identitytoken
            .is_some_and(|token| !token.expose_secret().is_empty())
        {
            return Some(Login::Unusable(
                "its credentials are an identitytoken, which is not supported: use a user and a password or token",
            ));
        }
        if let (Some(user), Some(password)) = (self.username, self.password) {
            return Some(Login::Password { user, password });
        }
        let decoded = BASE64_STANDARD.decode(self.auth?.expose_secret()).ok()?;
        let text = String::from_utf8(decoded).ok().map(SecretString::from)?;
        let (user, password) = text.expose_secret().split_once(':')?;
        Some(Login::Password {
            user: user.to_owned(),
            // Docker pads it.
            password: password.trim_end_matches('\0').to_owned().into(),
        })
    }
}

impl Login {
    /// The header that says it.
    pub(super) fn basic(&self) -> Result<HeaderValue, &'static str> {
        let (user, password) = match self {
            Self::Password { user, password } => (user, password),
            Self::Unusable(why) => return Err(why),
        };
        let pair: SecretString = format!("{user}:{}", password.expose_secret()).into();
        let text: SecretString = format!("Basic {}", BASE64_STANDARD.encode(pair.expose_secret())).into();
        let mut header =
            HeaderValue::from_str(text.expose_secret()).map_err(|_invalid| "its credentials are no text")?;
        header.set_sensitive(true);
        Ok(header)
    }
}

/// The host of a key: Docker writes some as URLs.
fn host_of(key: &str) -> String {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    rest.split('/').next().unwrap_or(rest).to_owned()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn read(text: &str) -> Result<Credentials, String> {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("config.json");
        fs::write(&file, text).unwrap();
        Credentials::read(&file)
    }

    #[test]
    fn dockers_file_is_read_and_its_passwords_are_not_shown() {
        let auth = BASE64_STANDARD.encode("ann:geheim:1");
        let text = format!(
            r#"{{"auths": {{"r.example:5000": {{"auth": "{auth}"}},
                "https://s.example/v1/": {{"username": "bob", "password": "geheim2"}},
                "t.example": {{"identitytoken": "geheim3"}}, "u.example": {{}}}},
                "credHelpers": {{"v.example": "ecr-login"}}}}"#
        );
        let known = read(&text).unwrap();
        let header = known.for_host("r.example:5000").unwrap().basic().unwrap();
        let said = BASE64_STANDARD.encode("ann:geheim:1");
        assert_eq!(header.to_str().unwrap(), format!("Basic {said}"));
        assert!(known.for_host("s.example").unwrap().basic().is_ok());
        assert!(
            known
                .for_host("t.example")
                .unwrap()
                .basic()
                .unwrap_err()
                .contains("identitytoken")
        );
        assert!(
            known
                .for_host("v.example")
                .unwrap()
                .basic()
                .unwrap_err()
                .contains("helper")
        );
        assert!(known.for_host("u.example").is_none() && known.for_host("r.example").is_none());
        let shown = format!("{known:?} {header:?}");
        assert!(!shown.contains("geheim") && !shown.contains(&said), "{shown}");
    }

    #[test]
    fn a_file_that_is_wrong_is_named_and_not_repeated() {
        let reason = read(r#"{"auths": {"r.example": {"auth": geheim}}}"#).unwrap_err();
        assert!(
            reason.contains("config.json") && !reason.contains("geheim"),
            "{reason}"
        );
        let missing = Credentials::read(Path::new("/nowhere/config.json")).unwrap_err();
        assert!(missing.contains("/nowhere/config.json"), "{missing}");
    }
}
