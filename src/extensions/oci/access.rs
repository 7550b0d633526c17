//! Which registries may be spoken to, how, and as whom.

use std::path::PathBuf;

use http::Uri;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    credentials::Credentials,
    reference::{host_name, is_loopback},
};
use crate::extensions::web::WebError;

/// How registries are spoken to that modules are pulled from.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RegistriesConfig {
    /// A file with the credentials of registries, as Docker and Kubernetes write it (`config.json`, its `auths`). It is read
    /// anew for each module. Empty: none.
    pub credentials_file: PathBuf,
    /// Registries, each `HOST` or `HOST:PORT`, that are spoken to without TLS. Those of this machine always are.
    pub plain_http: Vec<String>,
}

/// What a client of registries may do.
#[derive(Debug, Default)]
pub struct Access {
    /// `None`: any host.
    hosts: Option<Vec<String>>,
    plain_http: Vec<String>,
    from: From,
}

#[derive(Debug, Default)]
enum From {
    #[default]
    Nowhere,
    File(PathBuf),
    Known(Credentials),
}

impl Access {
    /// As configured: to these hosts only.
    pub fn new(config: &RegistriesConfig, hosts: &[String]) -> Self {
        let file = &config.credentials_file;
        Self {
            hosts: Some(hosts.to_vec()),
            plain_http: config.plain_http.clone(),
            from: if file.as_os_str().is_empty() {
                From::Nowhere
            } else {
                From::File(file.clone())
            },
        }
    }

    /// To any host, for people at a command line; without TLS to these.
    pub fn anywhere(plain_http: Vec<String>, credentials: Credentials) -> Self {
        Self {
            hosts: None,
            plain_http,
            from: From::Known(credentials),
        }
    }

    /// Whether modules may come from a host.
    ///
    /// # Errors
    /// What to do if they may.
    pub fn allows(&self, host: &str) -> Result<(), WebError> {
        let host = host_name(host);
        match &self.hosts {
            Some(hosts) if !hosts.iter().any(|allowed| allowed == host) => Err(WebError::lasting(format!(
                "{host} is not one of extensions.module_hosts: add it, if modules may come from there"
            ))),
            _ => Ok(()),
        }
    }

    /// Where a registry is.
    pub(super) fn base(&self, host: &str) -> Result<String, WebError> {
        self.allows(host)?;
        let scheme = if self.is_plain(host) { "http" } else { "https" };
        Ok(format!("{scheme}://{host}"))
    }

    /// Whether a URL that a registry names may be asked.
    pub(super) fn may_ask(&self, uri: &Uri) -> Result<(), WebError> {
        let host = uri.authority().map_or("", |authority| authority.as_str());
        if host.contains('@') {
            return Err(WebError::lasting("the registry names a URL with a user in it"));
        }
        self.allows(host)?;
        match uri.scheme_str() {
            Some("https") => Ok(()),
            Some("http") if self.is_plain(host) => Ok(()),
            _ => Err(WebError::lasting(format!(
                "the registry leads to {host} without TLS: list it in plain_http, if it may"
            ))),
        }
    }

    fn is_plain(&self, host: &str) -> bool {
        is_loopback(host) || self.plain_http.iter().any(|plain| plain == host)
    }

    /// The credentials, as they are now.
    pub(super) fn credentials(&self) -> Result<Credentials, WebError> {
        match &self.from {
            From::Nowhere => Ok(Credentials::default()),
            From::File(file) => Credentials::read(file).map_err(WebError::away),
            From::Known(credentials) => Ok(credentials.clone()),
        }
    }
}
