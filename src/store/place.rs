//! Where a store's data is.

use std::path::PathBuf;

/// Where the data is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Place {
    Memory,
    File(PathBuf),
    /// With its URL, which may hold a password.
    Postgres(String),
}

impl Place {
    pub(super) fn parse(text: &str) -> Self {
        if text == ":memory:" {
            Self::Memory
        } else if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            Self::Postgres(text.to_owned())
        } else {
            Self::File(text.into())
        }
    }

    pub(super) fn dialect(&self) -> Dialect {
        match self {
            Self::Memory | Self::File(_) => Dialect::Sqlite,
            Self::Postgres(_) => Dialect::Postgres,
        }
    }

    pub(super) fn url(&self) -> std::io::Result<String> {
        Ok(match self {
            Self::Memory => "sqlite::memory:".to_owned(),
            Self::Postgres(url) => url.clone(),
            Self::File(path) => {
                let path = std::path::absolute(path)?;
                let mut url = "sqlite://".to_owned();
                for &byte in path.as_os_str().as_encoded_bytes() {
                    if byte.is_ascii_alphanumeric() || matches!(byte, b'/' | b'.' | b'-' | b'_') {
                        url.push(char::from(byte));
                    } else {
                        url.push_str(&format!("%{byte:02X}"));
                    }
                }
                url + "?mode=rwc"
            }
        })
    }
}

impl std::fmt::Display for Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Memory => f.write_str("in memory"),
            Self::File(path) => path.display().fmt(f),
            Self::Postgres(_) => f.write_str("Postgres"),
        }
    }
}

/// The two databases differ in how a connection is set up, how a transaction begins, and the types in the migrations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    Sqlite,
    Postgres,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_apart_and_any_file_name_survives_the_url() {
        assert_eq!(Place::parse(":memory:"), Place::Memory);
        let secret = Place::parse("postgres://me:secret@host/db");
        assert!(matches!(secret, Place::Postgres(_)));
        assert_eq!(secret.to_string(), "Postgres");
        assert_eq!(
            Place::parse("/a b/c?d#é.db").url().unwrap(),
            "sqlite:///a%20b/c%3Fd%23%C3%A9.db?mode=rwc"
        );
    }
}
