//! The one table of failures: what each cause is called on the wire, in HTTP and in gRPC, and what becomes of the
//! message that met it. A transport translates a [`Failure`]; it decides nothing about it.

use http::StatusCode;
use serde_json::{Map, Value};

/// Every cause of a refusal or an error, by the name that callers, metrics and logs know it by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorCode {
    /// A path, header or body does not have the required form.
    InvalidRequest,
    /// The body is not JSON.
    InvalidJson,
    /// The bearer token is absent or wrong.
    Unauthorized,
    /// Without a token, only clients on this machine are allowed.
    Forbidden,
    /// The path, or what it names, does not exist.
    NotFound,
    /// The path exists and does not accept the method.
    MethodNotAllowed,
    /// The operation does not fit the present state of what it names.
    Conflict,
    /// The changes since the given revision are no longer known; the client must take a snapshot.
    SnapshotRequired,
    /// The request did not arrive, or was not carried out, in time.
    RequestTimeout,
    /// The client ended the connection before its request was there.
    ClientClosedRequest,
    /// The body has no `Content-Length`.
    LengthRequired,
    /// `If-Match` or `If-None-Match` of a write is not satisfied.
    PreconditionFailed,
    /// The body is larger than the limit.
    PayloadTooLarge,
    /// The body has a `Content-Encoding`, which is not supported.
    UnsupportedMediaType,
    /// The body is JSON and not a valid policy; `error.details` lists the problems.
    InvalidPolicy,
    /// A bug, or a failure of this machine; the log has the cause.
    InternalError,
    /// The request has passed through this sidecar before: `heir.url` leads back to it.
    LoopDetected,
    /// HEIR's answer cannot be used, or a forwarded request received none.
    HeirError,
    /// Only HEIR could answer, and it is unavailable.
    HeirUnavailable,
    /// HEIR has not confirmed the policy for `refresh.expired_after_ms`, and `refresh.when_expired` is `refuse`.
    PolicyExpired,
    /// A limit on concurrent work is reached.
    Overloaded,
    /// The write journal is full or cannot be written.
    JournalUnavailable,
    /// The embedded store's disk is full.
    StorageFull,
    /// The embedded store's disk, or its file, cannot be written.
    StorageUnavailable,
    /// HEIR did not answer in time.
    HeirTimeout,
    /// A request for a decision that does not have the contract's form.
    InvalidDecideRequest,
    /// A request for a decision that is too large to be read.
    DecideRequestTooLarge,
    /// The tenant may not request decisions (`decide.allowed_tenants`); `unauthorized` on the wire.
    TenantForbidden,
    /// The policy that a decision needs does not exist.
    PolicyNotFound,
    /// A policy's, a tenant's or the global rate limit refused the decision.
    RateLimitExceeded,
    /// No provider is available.
    DecisionFailed,
    /// The request's deadline has passed; `internal` on the wire.
    DeadlineExceeded,
    /// The policy names more extensions than a pipeline may have.
    PipelineTooLong,
    /// A required extension other than a post-processor failed.
    ExtensionError,
    /// A validator rejected the request, or failed and is set to block.
    ValidatorBlocked,
    /// A required post-processor failed.
    PostProcessorFailed,
}

/// The gRPC status codes of the platform's table (contract: messaging 8.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum GrpcCode {
    /// INVALID_ARGUMENT.
    InvalidArgument = 3,
    /// NOT_FOUND.
    NotFound = 5,
    /// PERMISSION_DENIED.
    PermissionDenied = 7,
    /// RESOURCE_EXHAUSTED.
    ResourceExhausted = 8,
    /// INTERNAL.
    Internal = 13,
    /// UNAVAILABLE.
    Unavailable = 14,
    /// UNAUTHENTICATED.
    Unauthenticated = 16,
}

/// What becomes of a message whose processing failed (contract: messaging 3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Settlement {
    /// The failure is the answer: reply, and acknowledge.
    Ack,
    /// Another delivery may succeed.
    Nak,
    /// No delivery can succeed: publish to the dead letters, reply, and acknowledge.
    DeadLetter,
}

/// One row of the table.
#[derive(Debug, Clone, Copy)]
struct Row {
    wire: &'static str,
    status: StatusCode,
    grpc: GrpcCode,
    settlement: Settlement,
}

const fn row(wire: &'static str, status: StatusCode, grpc: GrpcCode, settlement: Settlement) -> Row {
    Row {
        wire,
        status,
        grpc,
        settlement,
    }
}

impl ErrorCode {
    const fn row(self) -> Row {
        use GrpcCode as G;
        use Settlement::{Ack, DeadLetter, Nak};
        use StatusCode as S;
        match self {
            Self::InvalidRequest => row("invalid_request", S::BAD_REQUEST, G::InvalidArgument, DeadLetter),
            Self::InvalidJson => row("invalid_json", S::BAD_REQUEST, G::InvalidArgument, DeadLetter),
            Self::Unauthorized => row("unauthorized", S::UNAUTHORIZED, G::Unauthenticated, DeadLetter),
            Self::Forbidden => row("forbidden", S::FORBIDDEN, G::PermissionDenied, DeadLetter),
            Self::NotFound => row("not_found", S::NOT_FOUND, G::NotFound, Ack),
            Self::MethodNotAllowed => row(
                "method_not_allowed",
                S::METHOD_NOT_ALLOWED,
                G::InvalidArgument,
                DeadLetter,
            ),
            Self::Conflict => row("conflict", S::CONFLICT, G::InvalidArgument, Ack),
            Self::SnapshotRequired => row("snapshot_required", S::GONE, G::InvalidArgument, Ack),
            Self::RequestTimeout => row("request_timeout", S::REQUEST_TIMEOUT, G::Unavailable, Nak),
            // The client has gone and reads no answer; the table wants a status.
            Self::ClientClosedRequest => row(
                "client_closed_request",
                S::BAD_REQUEST,
                G::InvalidArgument,
                DeadLetter,
            ),
            Self::LengthRequired => row(
                "length_required",
                S::LENGTH_REQUIRED,
                G::InvalidArgument,
                DeadLetter,
            ),
            Self::PreconditionFailed => row(
                "precondition_failed",
                S::PRECONDITION_FAILED,
                G::InvalidArgument,
                Ack,
            ),
            Self::PayloadTooLarge | Self::DecideRequestTooLarge => row(
                "payload_too_large",
                S::PAYLOAD_TOO_LARGE,
                G::InvalidArgument,
                DeadLetter,
            ),
            Self::UnsupportedMediaType => row(
                "unsupported_media_type",
                S::UNSUPPORTED_MEDIA_TYPE,
                G::InvalidArgument,
                DeadLetter,
            ),
            Self::InvalidPolicy => row(
                "invalid_policy",
                S::UNPROCESSABLE_ENTITY,
                G::InvalidArgument,
                DeadLetter,
            ),
            Self::InternalError => row("internal_error", S::INTERNAL_SERVER_ERROR, G::Internal, Nak),
            Self::LoopDetected => row("loop_detected", S::LOOP_DETECTED, G::Internal, DeadLetter),
            Self::HeirError => row("heir_error", S::BAD_GATEWAY, G::Unavailable, Nak),
            Self::HeirUnavailable => row("heir_unavailable", S::SERVICE_UNAVAILABLE, G::Unavailable, Nak),
            Self::PolicyExpired => row("policy_expired", S::SERVICE_UNAVAILABLE, G::Unavailable, Nak),
            Self::Overloaded => row("overloaded", S::SERVICE_UNAVAILABLE, G::Unavailable, Nak),
            Self::JournalUnavailable => {
                row("journal_unavailable", S::SERVICE_UNAVAILABLE, G::Unavailable, Nak)
            }
            Self::StorageFull => row("storage_full", S::INSUFFICIENT_STORAGE, G::Unavailable, Nak),
            Self::StorageUnavailable => {
                row("storage_unavailable", S::SERVICE_UNAVAILABLE, G::Unavailable, Nak)
            }
            Self::HeirTimeout => row("heir_timeout", S::GATEWAY_TIMEOUT, G::Unavailable, Nak),
            Self::InvalidDecideRequest => {
                row("invalid_request", S::BAD_REQUEST, G::InvalidArgument, DeadLetter)
            }
            // The platform's codes for decisions; two of them stand for more than one cause.
            Self::TenantForbidden => row("unauthorized", S::FORBIDDEN, G::PermissionDenied, DeadLetter),
            Self::PolicyNotFound => row("policy_not_found", S::NOT_FOUND, G::NotFound, Ack),
            Self::RateLimitExceeded => row(
                "rate_limit_exceeded",
                S::TOO_MANY_REQUESTS,
                G::ResourceExhausted,
                Ack,
            ),
            Self::DecisionFailed => row("decision_failed", S::SERVICE_UNAVAILABLE, G::Internal, Ack),
            Self::DeadlineExceeded => row("internal", S::GATEWAY_TIMEOUT, G::Unavailable, Ack),
            Self::PipelineTooLong => row("invalid_request", S::BAD_REQUEST, G::InvalidArgument, Ack),
            Self::ExtensionError => row("extension_error", S::INTERNAL_SERVER_ERROR, G::Internal, Ack),
            Self::ValidatorBlocked => row("validator_blocked", S::FORBIDDEN, G::PermissionDenied, Ack),
            Self::PostProcessorFailed => row(
                "post_processor_failed",
                S::INTERNAL_SERVER_ERROR,
                G::Internal,
                Ack,
            ),
        }
    }

    /// `error.code` on the wire, and the `code` label of metrics.
    pub const fn as_str(self) -> &'static str {
        self.row().wire
    }

    /// The HTTP status.
    pub const fn status(self) -> StatusCode {
        self.row().status
    }

    /// The gRPC status code.
    pub const fn grpc(self) -> GrpcCode {
        self.row().grpc
    }

    /// What becomes of a message that met this failure.
    pub const fn settlement(self) -> Settlement {
        self.row().settlement
    }
}

/// The family of a refused request for a decision, `error.intake_error_code` (contract: messaging 2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IntakeCode {
    /// A field is missing or does not have the contract's form.
    SchemaValidationFailed,
    /// The contract's version is not supported.
    VersionUnsupported,
    /// An id that correlates requests is malformed.
    CorrelationFieldsInvalid,
    /// The tenant may not request decisions.
    TenantForbidden,
}

impl IntakeCode {
    /// As it is on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::SchemaValidationFailed => "SCHEMA_VALIDATION_FAILED",
            Self::VersionUnsupported => "VERSION_UNSUPPORTED",
            Self::CorrelationFieldsInvalid => "CORRELATION_FIELDS_INVALID",
            Self::TenantForbidden => "TENANT_FORBIDDEN",
        }
    }
}

/// The state of the limit that applied to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LimitState {
    /// Requests per window.
    pub limit: u64,
    /// Requests that are still allowed now.
    pub remaining: u64,
    /// Unix seconds at which the next request is allowed.
    pub reset_unix_seconds: u64,
}

/// The version of a policy that is there in place of the one that a write named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CurrentVersion {
    /// The entity tag, in quotes.
    pub etag: String,
    /// HEIR's revision; `None` where HEIR keeps none.
    pub revision: Option<u64>,
}

/// The decision that was refused, as explanations and logs name it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RefusedDecision {
    /// The decision's id.
    pub id: String,
    /// Hex digits.
    pub seed: String,
}

/// An error on its way to the caller.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The cause, which determines the status and the code on the wire.
    pub code: ErrorCode,
    /// A sentence for a person; never holds a secret or a document's content.
    pub message: String,
    /// `error.details`.
    pub details: Map<String, Value>,
    /// `error.intake_error_code`.
    pub intake: Option<IntakeCode>,
    /// When another attempt makes sense, in whole seconds, at least one.
    pub retry_after_seconds: Option<u64>,
    /// Whether the connection ends with this answer: what follows on it cannot be trusted to be a request.
    pub closes_connection: bool,
    /// Attributes that few failures have.
    pub attributes: Option<Box<Attributes>>,
}

/// What only some failures say besides.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Attributes {
    /// `context.request_id`.
    pub request_id: Option<String>,
    /// `context.trace_id`.
    pub trace_id: Option<String>,
    /// The rate limit that refused the request; `None` for other causes.
    pub limit: Option<LimitState>,
    /// The version that a write conflicts with; `None` where it is unknown or does not exist.
    pub current: Option<CurrentVersion>,
    /// The refused decision; `None` where no decision was begun.
    pub decision: Option<RefusedDecision>,
    /// The methods that the path has.
    pub allow: Option<&'static str>,
}

impl Failure {
    /// A failure with nothing but a cause and a sentence.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            details: Map::new(),
            intake: None,
            retry_after_seconds: None,
            closes_connection: false,
            attributes: None,
        }
    }

    /// The path exists and does not take the method; `allow` lists those that it takes, with commas.
    pub fn method_not_allowed(allow: &'static str) -> Self {
        let mut failure = Self::new(ErrorCode::MethodNotAllowed, format!("this path takes {allow}"));
        failure.attributes_mut().allow = Some(allow);
        failure
    }

    fn attributes_mut(&mut self) -> &mut Attributes {
        self.attributes.get_or_insert_default()
    }

    /// Adds one entry of `error.details`.
    pub fn detail(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.details.insert(key.to_owned(), value.into());
        self
    }

    /// Names the family of a refused request for a decision.
    pub fn intake(mut self, code: IntakeCode) -> Self {
        self.intake = Some(code);
        self
    }

    /// Names the request in `context`; an unknown id is left out.
    pub fn about(mut self, request_id: Option<&str>, trace_id: Option<&str>) -> Self {
        let attributes = self.attributes_mut();
        if let Some(id) = request_id {
            attributes.request_id = Some(id.to_owned());
        }
        if let Some(id) = trace_id {
            attributes.trace_id = Some(id.to_owned());
        }
        self
    }

    /// Names the decision that was refused.
    pub fn decision(mut self, id: String, seed: String) -> Self {
        self.attributes_mut().decision = Some(RefusedDecision { id, seed });
        self
    }

    /// Adds the state of the limit that refused the request.
    pub fn limit(mut self, limit: LimitState) -> Self {
        self.attributes_mut().limit = Some(limit);
        self
    }

    /// Names the version that is there; `etag` in quotes.
    pub fn current(mut self, etag: String, revision: Option<u64>) -> Self {
        self.attributes_mut().current = Some(CurrentVersion { etag, revision });
        self
    }

    /// Says when another attempt makes sense, in whole seconds, at least one.
    pub fn retry_after_seconds(mut self, seconds: u64) -> Self {
        self.retry_after_seconds = Some(seconds.max(1));
        self
    }

    /// Ends the connection after this answer.
    pub fn closing(mut self) -> Self {
        self.closes_connection = true;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transient_causes_are_delivered_again_and_faulty_requests_are_not() {
        for code in [
            ErrorCode::HeirUnavailable,
            ErrorCode::Overloaded,
            ErrorCode::InternalError,
        ] {
            assert_eq!(code.settlement(), Settlement::Nak, "{code:?}");
        }
        for code in [
            ErrorCode::InvalidDecideRequest,
            ErrorCode::DecideRequestTooLarge,
            ErrorCode::TenantForbidden,
        ] {
            assert_eq!(code.settlement(), Settlement::DeadLetter, "{code:?}");
        }
        // The same code on the wire, and yet the answer of a decision and no fault of the request's form.
        assert_eq!(
            ErrorCode::PipelineTooLong.as_str(),
            ErrorCode::InvalidDecideRequest.as_str()
        );
        assert_eq!(ErrorCode::PipelineTooLong.settlement(), Settlement::Ack);
        assert_eq!(ErrorCode::NotFound.grpc() as u8, 5);
    }

    #[test]
    fn the_failure_fits_a_result() {
        assert!(size_of::<Failure>() <= 128, "{}", size_of::<Failure>());
    }
}
