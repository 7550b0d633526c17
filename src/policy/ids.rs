//! Tenant and policy ids, as types that hold only valid ids.
//!
//! An id ends up in URLs, file names, metric labels and log lines, so its grammar is checked once, here, before
//! it reaches any of them: `^[A-Za-z0-9_.-]{1,255}$`, and neither `.` nor `..`, which are path segments with a
//! meaning of their own.

use std::{borrow::Borrow, fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize};

/// Longest id in bytes.
pub const MAX_ID_BYTES: usize = 255;

/// Why a text is not a valid id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text is empty.
    #[error("is empty; an id has 1 to {MAX_ID_BYTES} characters")]
    Empty,
    /// The text is longer than [`MAX_ID_BYTES`].
    #[error("is longer than {MAX_ID_BYTES} characters")]
    TooLong,
    /// A character is outside the grammar.
    #[error("has a character outside A-Z a-z 0-9 _ . -")]
    Character,
    /// `.` or `..`, which would change the path.
    #[error("is `.` or `..`, which are path segments and not ids")]
    DotSegment,
    /// The name of an operation.
    #[error("is `dry-run` or `complexity`, which are operations and not ids")]
    Reserved,
}

/// Checks a text against the grammar of ids.
pub fn check_id(text: &str) -> Result<(), InvalidId> {
    if text.is_empty() {
        return Err(InvalidId::Empty);
    }
    if text.len() > MAX_ID_BYTES {
        return Err(InvalidId::TooLong);
    }
    if !text
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
    {
        return Err(InvalidId::Character);
    }
    match text {
        "." | ".." => Err(InvalidId::DotSegment),
        // They appear in paths in the place of an id, so they must not be ids themselves.
        "dry-run" | "complexity" => Err(InvalidId::Reserved),
        _ => Ok(()),
    }
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
        #[serde(transparent)]
        pub struct $name(Arc<str>);

        impl $name {
            /// Parses an id.
            pub fn parse(text: &str) -> Result<Self, InvalidId> {
                check_id(text).map(|()| Self(text.into()))
            }

            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
                Self::parse(&text).map_err(serde::de::Error::custom)
            }
        }

        impl schemars::JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                schemars::json_schema!({"type": "string", "pattern": "^[A-Za-z0-9_.-]{1,255}$"})
            }
        }
    };
}

id! {
    /// A tenant of the platform. The tenant is part of every key: the same policy id in two tenants is unrelated.
    TenantId
}
id! {
    /// A policy's id, unique within its tenant.
    PolicyId
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_grammar_is_exact() {
        for good in ["a", "acme", "ACME_1.v-2", "...", ".hidden", &"x".repeat(255)] {
            assert_eq!(check_id(good), Ok(()), "{good}");
        }
        let long = "x".repeat(256);
        for (bad, why) in [
            ("", InvalidId::Empty),
            (long.as_str(), InvalidId::TooLong),
            (".", InvalidId::DotSegment),
            ("..", InvalidId::DotSegment),
            ("dry-run", InvalidId::Reserved),
            ("complexity", InvalidId::Reserved),
            ("a/b", InvalidId::Character),
            ("a b", InvalidId::Character),
            ("chat\n", InvalidId::Character),
            ("naïve", InvalidId::Character),
            ("a\u{2028}b", InvalidId::Character),
            ("%41", InvalidId::Character),
        ] {
            assert_eq!(check_id(bad), Err(why), "{bad:?}");
        }
    }
}
