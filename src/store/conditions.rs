//! `If-Match` and `If-None-Match` (RFC 9110, section 13).

use http::{HeaderMap, HeaderValue, header};

use crate::policy::ETag;

/// The conditions of a request.
#[derive(Debug, Default)]
pub(super) struct Conditions {
    if_match: Vec<HeaderValue>,
    if_none_match: Vec<HeaderValue>,
}

impl Conditions {
    pub(super) fn of(headers: &HeaderMap) -> Self {
        Self {
            if_match: headers.get_all(header::IF_MATCH).iter().cloned().collect(),
            if_none_match: headers.get_all(header::IF_NONE_MATCH).iter().cloned().collect(),
        }
    }

    /// The conditions as the client wrote them, if there are any.
    pub(super) fn text(&self) -> Option<String> {
        if self.if_match.is_empty() && self.if_none_match.is_empty() {
            return None;
        }
        Some(format!("{:?} {:?}", self.if_match, self.if_none_match))
    }

    /// Whether a write is allowed, given the tag of the current document.
    pub(super) fn allow_write(&self, current: Option<&ETag>) -> bool {
        let names = |lists: &[HeaderValue], weak| {
            current.is_some_and(|tag| lists.iter().any(|list| tag.is_named_by(list, weak)))
        };
        (self.if_match.is_empty() || names(&self.if_match, false)) && !names(&self.if_none_match, true)
    }

    /// Whether the client already has the current document.
    pub(super) fn is_not_modified(&self, current: &ETag) -> bool {
        self.if_none_match
            .iter()
            .any(|list| current.is_named_by(list, true))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allows(name: header::HeaderName, value: &'static str, current: Option<&str>) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(name, HeaderValue::from_static(value));
        let current = current.map(|tag| ETag::parse(tag).unwrap());
        Conditions::of(&headers).allow_write(current.as_ref())
    }

    #[test]
    fn writes_are_held_to_what_the_client_has_seen() {
        let none = Conditions::default();
        assert!(none.allow_write(None));
        for (value, current, allowed) in [
            ("\"a\"", Some("\"a\""), true),
            ("\"b\", \"a\"", Some("\"a\""), true),
            ("\"b\"", Some("\"a\""), false),
            ("W/\"a\"", Some("\"a\""), false),
            ("*", Some("\"a\""), true),
            ("*", None, false),
            ("\"a\"", None, false),
        ] {
            assert_eq!(
                allows(header::IF_MATCH, value, current),
                allowed,
                "{value} {current:?}"
            );
        }
        for (value, current, allowed) in [
            ("*", None, true),
            ("*", Some("\"a\""), false),
            ("\"a\"", Some("\"a\""), false),
            ("\"b\"", Some("\"a\""), true),
        ] {
            assert_eq!(
                allows(header::IF_NONE_MATCH, value, current),
                allowed,
                "{value} {current:?}"
            );
        }
    }
}
