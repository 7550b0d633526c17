//! Entity tags: the name of one exact version of a document.

use std::fmt;

use http::HeaderValue;
use sha2::{Digest, Sha256};

/// A strong entity tag with its quotes, as it is sent (RFC 9110, section 8.8.3).
///
/// Kept as a header value because a lookup answers with it: cloning one is a reference count.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct ETag(HeaderValue);

impl ETag {
    /// The tag that the embedded HEIR gives these bytes, and that the sidecar gives a document that came without
    /// one: the first 128 bits of their SHA-256 in lower-case hex. The same bytes always have the same tag.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        let digest = Sha256::digest(bytes);
        let mut text = [b'"'; 34];
        // Sixteen bytes are 32 digits, so this cannot fail.
        let _infallible = hex::encode_to_slice(&digest[..16], &mut text[1..33]);
        // Hex digits and quotes are always valid in a header.
        Self(HeaderValue::from_bytes(&text).unwrap_or_else(|_| HeaderValue::from_static("\"\"")))
    }

    /// A tag for these bytes alone, where HEIR has given this one to others as well: what has the one is not to be taken for
    /// the other.
    #[must_use]
    pub fn told_apart(&self, bytes: &[u8]) -> Self {
        let ours = Self::of_bytes(bytes);
        let ours = ours.as_str().trim_matches('"');
        let digest = Self::of_bytes(self.as_str().as_bytes());
        let theirs = digest.as_str().trim_matches('"');
        let text = format!("\"{theirs}~{ours}\"");
        Self::parse(&text).unwrap_or_else(|| Self::of_bytes(bytes))
    }

    /// Whether it is this tag, or was [told apart](Self::told_apart) from it for these bytes.
    pub fn comes_from(&self, tag: &Self, bytes: &[u8]) -> bool {
        // Only such a tag is worth two digests.
        self == tag || (self.as_str().contains('~') && *self == tag.told_apart(bytes))
    }

    /// Parses a tag as a peer sent it. Weak tags and texts that are not a quoted tag are useless for comparing
    /// documents byte for byte, so they count as absent.
    pub fn parse(text: &str) -> Option<Self> {
        let inner = text.strip_prefix('"')?.strip_suffix('"')?;
        let valid = !inner.is_empty()
            && inner.len() <= 256
            && inner.bytes().all(|b| b == 0x21 || (0x23..=0x7e).contains(&b));
        valid
            .then(|| HeaderValue::from_str(text).ok().map(Self))
            .flatten()
    }

    /// The tag with its quotes, as in a header.
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// The value to put into an `ETag`, `If-Match` or `If-None-Match` header.
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }

    /// The items of an `If-Match` or `If-None-Match` list. A comma within a tag's quotes belongs to the tag.
    pub fn items(list: &str) -> impl Iterator<Item = &str> {
        let mut is_quoted = false;
        let separates = move |c: char| {
            is_quoted ^= c == '"';
            c == ',' && !is_quoted
        };
        list.split(separates).map(str::trim)
    }

    /// Whether a client's `If-None-Match` or `If-Match` list names this tag. `*` alone names any. Weak comparison when
    /// `weak`, as `If-None-Match` demands; strong otherwise.
    pub fn is_named_by(&self, list: &HeaderValue, weak: bool) -> bool {
        let Ok(list) = list.to_str() else { return false };
        let tag = self.as_str();
        if list == tag || list.trim() == "*" {
            return true;
        }
        Self::items(list).any(|item| item == tag || (weak && item.strip_prefix("W/") == Some(tag)))
    }
}

impl fmt::Display for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for ETag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for ETag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

impl schemars::JsonSchema for ETag {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "ETag".into()
    }

    fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
        schemars::json_schema!({"type": "string", "description": "A strong entity tag, quotes included"})
    }
}

impl<'de> serde::Deserialize<'de> for ETag {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| serde::de::Error::custom("not a strong entity tag"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_that_names_two_documents_is_told_apart() {
        let tag = ETag::parse("\"v1\"").unwrap();
        let apart = tag.told_apart(b"{}");
        assert_eq!(ETag::parse(apart.as_str()).as_ref(), Some(&apart));
        assert!(apart != tag && apart != tag.told_apart(b"[]"));
        assert!(apart.comes_from(&tag, b"{}") && tag.comes_from(&tag, b"{}"));
        assert!(!apart.comes_from(&tag, b"[]") && !apart.comes_from(&ETag::of_bytes(b"{}"), b"{}"));
    }

    #[test]
    fn the_tag_of_bytes_is_their_digest() {
        // `printf '{}' | sha256sum | cut -c1-32`
        assert_eq!(
            ETag::of_bytes(b"{}").as_str(),
            "\"44136fa355b3678a1146ad16f7e8649e\""
        );
        assert_ne!(ETag::of_bytes(b"{}"), ETag::of_bytes(b"{ }"));
    }

    #[test]
    fn only_strong_quoted_tags_are_taken() {
        assert!(ETag::parse("\"abc\"").is_some());
        for bad in ["", "abc", "\"\"", "W/\"abc\"", "\"a\"b\"", "\"a\nb\"", "\"a b\""] {
            assert!(ETag::parse(bad).is_none(), "{bad:?}");
        }
    }

    #[test]
    fn lists_of_tags_are_searched() {
        let tag = ETag::parse("\"b\"").unwrap();
        let named = |list: &'static str, weak| tag.is_named_by(&HeaderValue::from_static(list), weak);
        assert!(named("\"a\", \"b\"", false));
        assert!(named("*", false));
        assert!(named("W/\"b\"", true));
        assert!(!named("W/\"b\"", false));
        assert!(!named("\"a\",\"c\"", true));
        assert!(!named("\"a,*,c\"", true) && !named("\"a\", *", true) && !named("\"a, \"b\"", true));
    }
}
