//! The one table from error to status, code and origin, and the error body of the contracts.

use http::{HeaderName, HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};

use super::{Response, json as json_response};

/// Everything that can be wrong, by the name that clients, metrics and logs know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    InvalidRequest,
    InvalidJson,
    Unauthorized,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    Conflict,
    SnapshotRequired,
    RequestTimeout,
    LengthRequired,
    PreconditionFailed,
    PayloadTooLarge,
    UnsupportedMediaType,
    InvalidPolicy,
    RateLimited,
    InternalError,
    LoopDetected,
    HeirError,
    HeirUnavailable,
    PolicyExpired,
    Overloaded,
    JournalUnavailable,
    HeirTimeout,
    TenantForbidden,
    PolicyNotFound,
    RateLimitExceeded,
    DecisionFailed,
    DeadlineExceeded,
    ExtensionError,
    ValidatorBlocked,
    PostProcessorFailed,
}

impl ErrorCode {
    /// The code on the wire and in metric labels, and the HTTP status that goes with it.
    const fn row(self) -> (&'static str, StatusCode) {
        match self {
            Self::InvalidRequest => ("invalid_request", StatusCode::BAD_REQUEST),
            Self::InvalidJson => ("invalid_json", StatusCode::BAD_REQUEST),
            Self::Unauthorized => ("unauthorized", StatusCode::UNAUTHORIZED),
            Self::Forbidden => ("forbidden", StatusCode::FORBIDDEN),
            Self::NotFound => ("not_found", StatusCode::NOT_FOUND),
            Self::MethodNotAllowed => ("method_not_allowed", StatusCode::METHOD_NOT_ALLOWED),
            Self::Conflict => ("conflict", StatusCode::CONFLICT),
            Self::SnapshotRequired => ("snapshot_required", StatusCode::GONE),
            Self::RequestTimeout => ("request_timeout", StatusCode::REQUEST_TIMEOUT),
            Self::LengthRequired => ("length_required", StatusCode::LENGTH_REQUIRED),
            Self::PreconditionFailed => ("precondition_failed", StatusCode::PRECONDITION_FAILED),
            Self::PayloadTooLarge => ("payload_too_large", StatusCode::PAYLOAD_TOO_LARGE),
            Self::UnsupportedMediaType => ("unsupported_media_type", StatusCode::UNSUPPORTED_MEDIA_TYPE),
            Self::InvalidPolicy => ("invalid_policy", StatusCode::UNPROCESSABLE_ENTITY),
            Self::RateLimited => ("rate_limited", StatusCode::TOO_MANY_REQUESTS),
            Self::InternalError => ("internal_error", StatusCode::INTERNAL_SERVER_ERROR),
            Self::LoopDetected => ("loop_detected", StatusCode::LOOP_DETECTED),
            Self::HeirError => ("heir_error", StatusCode::BAD_GATEWAY),
            Self::HeirUnavailable => ("heir_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::PolicyExpired => ("policy_expired", StatusCode::SERVICE_UNAVAILABLE),
            Self::Overloaded => ("overloaded", StatusCode::SERVICE_UNAVAILABLE),
            Self::JournalUnavailable => ("journal_unavailable", StatusCode::SERVICE_UNAVAILABLE),
            Self::HeirTimeout => ("heir_timeout", StatusCode::GATEWAY_TIMEOUT),
            // The platform's codes for decisions; two of them stand for more than one cause.
            Self::TenantForbidden => ("unauthorized", StatusCode::FORBIDDEN),
            Self::PolicyNotFound => ("policy_not_found", StatusCode::NOT_FOUND),
            Self::RateLimitExceeded => ("rate_limit_exceeded", StatusCode::TOO_MANY_REQUESTS),
            Self::DecisionFailed => ("decision_failed", StatusCode::SERVICE_UNAVAILABLE),
            Self::DeadlineExceeded => ("internal", StatusCode::GATEWAY_TIMEOUT),
            Self::ExtensionError => ("extension_error", StatusCode::INTERNAL_SERVER_ERROR),
            Self::ValidatorBlocked => ("validator_blocked", StatusCode::FORBIDDEN),
            Self::PostProcessorFailed => ("post_processor_failed", StatusCode::INTERNAL_SERVER_ERROR),
        }
    }

    pub const fn as_str(self) -> &'static str {
        self.row().0
    }

    pub const fn status(self) -> StatusCode {
        self.row().1
    }
}

/// An error on its way to the client.
#[derive(Debug, Clone)]
pub struct Failure {
    pub code: ErrorCode,
    /// A sentence for a person; never holds a secret or a document's content.
    pub message: String,
    pub details: Map<String, Value>,
    /// `error.intake_error_code`: the family of a refused request for a decision.
    intake: Option<&'static str>,
    /// `context`: the ids of the request, as far as they are known.
    context: Map<String, Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Failure {
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Map::new(),
            intake: None,
            context: Map::new(),
            headers: Vec::new(),
        }
    }

    /// Adds one entry of `error.details`.
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Names the family of a refused request for a decision.
    pub fn intake(mut self, code: &'static str) -> Self {
        self.intake = Some(code);
        self
    }

    /// Names the request in `context`; what is not known is left out.
    pub fn about(mut self, request_id: Option<&str>, trace_id: Option<&str>) -> Self {
        for (key, id) in [("request_id", request_id), ("trace_id", trace_id)] {
            if let Some(id) = id {
                self.context.insert(key.to_owned(), id.into());
            }
        }
        self
    }

    /// Tells the client when to come back, in whole seconds, at least one.
    pub fn retry_after_seconds(self, seconds: u64) -> Self {
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)))
    }

    /// Ends the connection after this answer: what follows on it cannot be trusted to be a request.
    pub fn closing(self) -> Self {
        self.header(header::CONNECTION, HeaderValue::from_static("close"))
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// `{"ok":false,"error":{"code","message","details"},"context":{}}` with the code's status.
    pub fn response(self) -> Response {
        let mut error = json!({"code": self.code.as_str(), "message": self.message, "details": self.details});
        if let Some(intake) = self.intake {
            error["intake_error_code"] = intake.into();
        }
        let body = json!({"ok": false, "error": error, "context": self.context});
        let mut response = json_response(self.code.status(), &body);
        response.headers_mut().extend(self.headers);
        response
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;

    #[tokio::test]
    async fn an_error_is_the_contracts_body_with_its_status_and_headers() {
        let failure = Failure::new(ErrorCode::PolicyExpired, "too \"old\"")
            .detail("age_ms", 7)
            .retry_after_seconds(0)
            .closing();
        let response = failure.response();
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
}
