//! The names of artifacts: `oci://HOST/REPOSITORY@sha256:…`.

use std::{fmt, net::IpAddr};

use crate::extensions::digest::ModuleDigest;

/// What a valid name looks like.
const FORM: &str = "write oci://HOST[:PORT]/REPOSITORY@sha256: and 64 hex digits";
const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// A repository of a registry.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Repository {
    /// With its port, where one is named.
    host: Box<str>,
    name: Box<str>,
}

/// An artifact by the digest of its manifest, which names that of its module.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Artifact {
    /// Where it is.
    pub repository: Repository,
    /// The digest of its manifest.
    pub digest: ModuleDigest,
}

/// An artifact, or a place for one, by a tag, a digest or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// Where it is.
    pub repository: Repository,
    /// A name that may be given to another one.
    pub tag: Option<Box<str>>,
    /// The digest of its manifest.
    pub digest: Option<ModuleDigest>,
}

impl Repository {
    /// Host and port, as they are named.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The host without its port.
    pub fn host_name(&self) -> &str {
        host_name(&self.host)
    }

    /// The path within the registry.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The artifact of this digest in it.
    pub fn artifact(&self, digest: ModuleDigest) -> Artifact {
        Artifact {
            repository: self.clone(),
            digest,
        }
    }
}

/// The host without its port; an address of IPv6 with its brackets.
pub(super) fn host_name(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|digit| digit.is_ascii_digit()) => name,
        _ => host,
    }
}

/// Whether a host is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let name = host_name(host);
    let address = name.trim_start_matches('[').trim_end_matches(']');
    name == "localhost" || address.parse().is_ok_and(|address: IpAddr| address.is_loopback())
}

impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "oci://{}/{}", self.host, self.name)
    }
}

impl Artifact {
    /// Reads the name of an artifact, which must have a digest: a tag may be given to another one at any time.
    ///
    /// # Errors
    /// What is wrong with it, and what would be valid.
    pub fn parse(text: &str) -> Result<Self, (String, &'static str)> {
        let Reference {
            repository, digest, ..
        } = Reference::parse(text).map_err(|reason| (reason, FORM))?;
        match digest {
            Some(digest) => Ok(Self { repository, digest }),
            None => Err((
                format!("{text:?} names no digest, and what a tag names may become another module"),
                "add @sha256:… as `beamline-sidecar ext push` prints it, or `ext inspect` for a tag",
            )),
        }
    }
}

impl fmt::Display for Artifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@sha256:{}", self.repository, self.digest)
    }
}

impl Reference {
    /// Reads a name, with or without `oci://` before it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("oci://").unwrap_or(text);
        let wrong = |what: &str| format!("{text:?} {what}");
        let (rest, digest) = match rest.split_once('@') {
            None => (rest, None),
            Some((rest, digest)) => {
                let digest = digest
                    .strip_prefix("sha256:")
                    .and_then(ModuleDigest::parse)
                    .ok_or_else(|| wrong("has no sha256 digest after its @"))?;
                (rest, Some(digest))
            }
        };
        let (host, path) = rest.split_once('/').ok_or_else(|| wrong("names no repository"))?;
        let (name, tag) = match path.split_once(':') {
            None => (path, None),
            Some((name, tag)) => (name, Some(tag)),
        };
        if !is_host(host) {
            return Err(wrong("names no registry: a host, with a port if need be"));
        }
        if name.len() > MAX_NAME || !name.split('/').all(is_component) {
            return Err(wrong(
                "names no repository: small letters and digits, with single `.`, `_`, `-` and `/` between them",
            ));
        }
        if tag.is_some_and(|tag| !is_tag(tag)) {
            return Err(wrong("has no valid tag"));
        }
        Ok(Self {
            repository: Repository {
                host: host.into(),
                name: name.into(),
            },
            tag: tag.map(Into::into),
            digest,
        })
    }

    /// What a registry is asked for: the digest where there is one.
    pub fn to_ask(&self) -> Option<String> {
        match (&self.digest, &self.tag) {
            (Some(digest), _) => Some(format!("sha256:{digest}")),
            (None, tag) => tag.as_ref().map(ToString::to_string),
        }
    }
}

impl std::str::FromStr for Reference {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text)
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.repository.fmt(f)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@sha256:{digest}")?;
        }
        Ok(())
    }
}

fn is_host(host: &str) -> bool {
    let name = host_name(host);
    let port = host.get(name.len()..).unwrap_or_default();
    let has_port = port.is_empty() || port[1..].parse::<u16>().is_ok_and(|port| port > 0);
    let is_label = |label: &str| {
        let inner = |c: u8| c.is_ascii_alphanumeric() || c == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    let is_name = match name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => name.len() <= 253 && name.split('.').all(is_label),
    };
    has_port && is_name
}

fn is_component(part: &str) -> bool {
    let bytes = part.as_bytes();
    let is_end =
        |byte: Option<&u8>| byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._-".contains(&byte);
    let is_single =
        !part.contains("..") && !part.contains("___") && !part.contains("._") && !part.contains("_.");
    is_end(bytes.first()) && is_end(bytes.last()) && part.bytes().all(is_inner) && is_single
}

fn is_tag(tag: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "_.-".contains(c);
    (1..=MAX_TAG).contains(&tag.len()) && tag.chars().all(inner) && !tag.starts_with(['.', '-'])
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIGEST: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    #[test]
    fn names_are_read_as_registries_define_them() {
        for text in [
            "registry.example/guards/pii",
            "oci://127.0.0.1:5000/a",
            "oci://[::1]:5000/a/b-c/d.e_f:v1.2",
            "oci://localhost/x__y--z",
        ] {
            assert_eq!(
                Reference::parse(text).map(|known| known.to_string()),
                Ok(format!("oci://{}", text.trim_start_matches("oci://")))
            );
        }
        let full = format!("oci://registry.example:5000/guards/pii:v1@{DIGEST}");
        let known = Reference::parse(&full).unwrap();
        assert_eq!(known.to_string(), full);
        assert_eq!(known.to_ask().as_deref(), Some(DIGEST));
        assert_eq!(known.repository.host_name(), "registry.example");
        for wrong in [
            "",
            "oci://",
            "registry.example",
            "registry.example/",
            "registry.example/Upper",
            "registry.example/a//b",
            "registry.example/../b",
            "registry.example/a..b",
            "registry.example/-a",
            "registry.example/a:",
            "registry.example/a:.x",
            "registry.example/a@sha256:12",
            "registry.example/a@sha512:12",
            "registry.example:0/a",
            "registry.example:70000/a",
            "user@registry.example/a",
            "registry..example/a",
            "[::1/a",
            "registry.example/a?b",
            "registry.example/a b",
            "registry.example\r\n/a",
        ] {
            assert!(Reference::parse(wrong).is_err(), "{wrong:?}");
        }
    }

    #[test]
    fn a_tag_alone_pins_nothing() {
        let pinned = format!("oci://registry.example/a:v1@{DIGEST}");
        let artifact = Artifact::parse(&pinned).unwrap();
        assert_eq!(artifact.to_string(), format!("oci://registry.example/a@{DIGEST}"));
        let (reason, remedy) = Artifact::parse("oci://registry.example/a:v1").unwrap_err();
        assert!(
            reason.contains("no digest") && remedy.contains("@sha256:"),
            "{reason} {remedy}"
        );
    }

    #[test]
    fn this_machine_is_known_by_its_names() {
        for (host, is) in [
            ("localhost", true),
            ("localhost:5000", true),
            ("127.0.0.1:5000", true),
            ("127.8.8.8", true),
            ("[::1]:5000", true),
            ("10.0.0.1:5000", false),
            ("localhost.example", false),
        ] {
            assert_eq!(is_loopback(host), is, "{host}");
        }
    }
}
