//! A failure as an HTTP response: the error body of the contracts, and the headers that go with it.

use std::fmt::Display;

use http::{HeaderName, HeaderValue, header};
use serde_json::{Map, Value, json};

use super::{
    body::Response,
    plain::{JSON, with_body},
};
use crate::failure::{Attributes, ErrorCode, Failure, LimitState};

/// Names a decision.
pub const DECISION_ID: HeaderName = HeaderName::from_static("x-beamline-decision-id");
/// The seed of a decision, in hex digits.
pub const SEED: HeaderName = HeaderName::from_static("x-beamline-seed");
/// HEIR's revision of a policy.
pub const HEIR_REVISION: HeaderName = HeaderName::from_static("x-heir-revision");

const LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
const REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
const RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");

/// `{"ok":false,"error":{"code","message","details"},"context":{}}` with the status of the failure's code.
pub fn failure(failure: Failure) -> Response {
    let Failure {
        code,
        message,
        details,
        intake,
        retry_after_seconds,
        closes_connection,
        attributes,
    } = failure;
    let attributes = attributes.unwrap_or_default();
    let mut error = json!({"code": code.as_str(), "message": message, "details": details});
    if let Some(intake) = intake {
        error["intake_error_code"] = intake.as_str().into();
    }
    let body = json!({"ok": false, "error": error, "context": context(&attributes)});
    let mut response = with_body(code.status(), JSON, body.to_string().into());
    let headers = response.headers_mut();
    if let Some(seconds) = retry_after_seconds {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    if closes_connection {
        headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
    }
    if code == ErrorCode::Unauthorized {
        headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    }
    if let Some(allow) = attributes.allow {
        headers.insert(header::ALLOW, HeaderValue::from_static(allow));
    }
    if let Some(limit) = attributes.limit {
        limit_headers(headers, limit);
    }
    if let Some(current) = &attributes.current {
        headers.insert(header::ETAG, text(&current.etag));
        if let Some(revision) = current.revision {
            headers.insert(HEIR_REVISION, HeaderValue::from(revision));
        }
    }
    if let Some(decision) = &attributes.decision {
        headers.insert(DECISION_ID, text(&decision.id));
        headers.insert(SEED, text(&decision.seed));
    }
    response
}

fn context(attributes: &Attributes) -> Map<String, Value> {
    let ids = [
        ("request_id", &attributes.request_id),
        ("trace_id", &attributes.trace_id),
    ];
    ids.into_iter()
        .filter_map(|(key, id)| Some((key.to_owned(), id.as_deref()?.into())))
        .collect()
}

/// Describes the limit that applied, in answers that pass as in those that do not.
pub fn limit_headers(headers: &mut http::HeaderMap, state: LimitState) {
    headers.insert(LIMIT, HeaderValue::from(state.limit));
    headers.insert(REMAINING, HeaderValue::from(state.remaining));
    headers.insert(RESET, HeaderValue::from(state.reset_unix_seconds));
}

/// A text that is known to be fit for a header, such as hex digits, as a header's value.
pub fn text(text: impl Display) -> HeaderValue {
    HeaderValue::try_from(text.to_string()).unwrap_or(HeaderValue::from_static(""))
}

#[cfg(test)]
mod tests {
    use http::StatusCode;
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_error_is_the_contracts_body_with_its_status_and_headers() {
        let expired = Failure::new(ErrorCode::PolicyExpired, "too \"old\"")
            .detail("age_ms", 7)
            .retry_after_seconds(0)
            .closing();
        let response = failure(expired);
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        let header = |name| response.headers()[&name].to_str().unwrap().to_owned();
        assert_eq!(header(header::CONTENT_TYPE), "application/json");
        assert_eq!(
            header(header::RETRY_AFTER),
            "1",
            "a client told to come back at once is no use"
        );
        assert_eq!(header(header::CONNECTION), "close");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(
            serde_json::from_slice::<Value>(&body).unwrap(),
            json!({
                "ok": false,
                "error": {"code": "policy_expired", "message": "too \"old\"", "details": {"age_ms": 7}},
                "context": {},
            })
        );
    }

    #[test]
    fn attributes_become_headers() {
        let refused = Failure::new(ErrorCode::RateLimitExceeded, "no")
            .limit(LimitState {
                limit: 5,
                remaining: 0,
                reset_unix_seconds: 9,
            })
            .current("\"a\"".to_owned(), Some(3))
            .decision("ff".to_owned(), "01".to_owned());
        let response = failure(refused);
        let headers = response.headers();
        for (name, value) in [
            ("x-ratelimit-limit", "5"),
            ("x-ratelimit-remaining", "0"),
            ("x-ratelimit-reset", "9"),
            ("etag", "\"a\""),
            ("x-heir-revision", "3"),
            ("x-beamline-decision-id", "ff"),
            ("x-beamline-seed", "01"),
        ] {
            assert_eq!(headers[name], value, "{name}");
        }
        assert_eq!(
            failure(Failure::method_not_allowed("GET, HEAD")).headers()["allow"],
            "GET, HEAD"
        );
        let unauthorized = failure(Failure::new(ErrorCode::Unauthorized, "who?"));
        assert_eq!(unauthorized.headers()["www-authenticate"], "Bearer");
    }
}
