//! How a registry wants to be told who asks: by a password, or by a token that another server gives for one.

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;

/// What a registry asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    Bearer { realm: String, service: Option<String> },
}

impl Challenge {
    /// The first challenge in the headers of an answer that is known here.
    pub(super) fn of(headers: &HeaderMap) -> Option<Self> {
        let all = headers.get_all(WWW_AUTHENTICATE).iter();
        all.filter_map(|value| value.to_str().ok()).find_map(Self::read)
    }

    fn read(text: &str) -> Option<Self> {
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            return Some(Self::Basic);
        }
        if !scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        let parameters = parameters(rest);
        let value = |name: &str| {
            let is_it = |(known, _): &&(String, String)| known.eq_ignore_ascii_case(name);
            parameters.iter().find(is_it).map(|(_, value)| value.clone())
        };
        Some(Self::Bearer {
            realm: value("realm")?,
            service: value("service"),
        })
    }
}

/// `name="value"` and `name=value`, separated by commas.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut rest = text.trim_start_matches([' ', ',']);
    while let Some((name, after)) = rest.split_once('=') {
        let (value, left) = match after.strip_prefix('"') {
            Some(quoted) => {
                let mut value = String::new();
                let mut chars = quoted.char_indices();
                let mut end = quoted.len();
                while let Some((at, c)) = chars.next() {
                    match c {
                        '"' => {
                            end = at + 1;
                            break;
                        }
                        '\\' => value.extend(chars.next().map(|(_, escaped)| escaped)),
                        c => value.push(c),
                    }
                }
                (value, &quoted[end..])
            }
            None => {
                let end = after.find(',').unwrap_or(after.len());
                (after[..end].trim().to_owned(), &after[end..])
            }
        };
        found.push((name.trim().to_owned(), value));
        rest = left.trim_start_matches([' ', ',']);
    }
    found
}

/// The URL of a token.
pub(super) fn token_url(realm: &str, service: Option<&str>, scope: &str) -> String {
    let encoded = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let separator = if realm.contains('?') { '&' } else { '?' };
    let service = service.map_or(String::new(), |service| format!("service={}&", encoded(service)));
    format!("{realm}{separator}{service}scope={}", encoded(scope))
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<SecretString>,
    access_token: Option<SecretString>,
}

/// The header that hands a token over; `None`: the answer holds none.
pub(super) fn bearer(answer: &[u8]) -> Option<HeaderValue> {
    let read: TokenAnswer = serde_json::from_slice(answer).ok()?;
    let token = read.token.or(read.access_token)?;
    let text: SecretString = format!("Bearer {}", token.expose_secret()).into();
    let mut header = HeaderValue::from_str(text.expose_secret()).ok()?;
    header.set_sensitive(true);
    Some(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_as_registries_write_them() {
        let bearer = |realm: &str, service: Option<&str>| {
            Some(Challenge::Bearer {
                realm: realm.into(),
                service: service.map(Into::into),
            })
        };
        let scoped = r#"Bearer realm="https://auth.example/token",service="r.example",scope="repository:a:pull,push",error="x""#;
        for (text, wanted) in [
            (r#"Basic realm="basic-realm""#, Some(Challenge::Basic)),
            ("basic", Some(Challenge::Basic)),
            (scoped, bearer("https://auth.example/token", Some("r.example"))),
            (
                "Bearer service=s , realm=https://a.example",
                bearer("https://a.example", Some("s")),
            ),
            (r#"Bearer realm="a\"b""#, bearer("a\"b", None)),
            (r#"Bearer realm="unclosed"#, bearer("unclosed", None)),
            ("Bearer", None),
            ("Negotiate x", None),
        ] {
            assert_eq!(Challenge::read(text), wanted, "{text}");
        }
    }

    #[test]
    fn a_token_is_asked_for_and_not_shown() {
        assert_eq!(
            token_url("https://a.example/t", Some("r.example"), "repository:a/b:pull"),
            "https://a.example/t?service=r%2Eexample&scope=repository%3Aa%2Fb%3Apull"
        );
        assert_eq!(
            token_url("https://a.example/t?x=1", None, "s"),
            "https://a.example/t?x=1&scope=s"
        );
        for text in [
            r#"{"token": "geheim"}"#,
            r#"{"access_token": "geheim", "expires_in": 1}"#,
        ] {
            let header = bearer(text.as_bytes()).unwrap();
            assert_eq!(header.to_str().unwrap(), "Bearer geheim");
            assert!(!format!("{header:?}").contains("geheim"));
        }
        for text in ["", "{}", r#"{"token": "a\nb"}"#] {
            assert!(bearer(text.as_bytes()).is_none(), "{text}");
        }
    }
}
