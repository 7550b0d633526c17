//! What can go wrong between the sidecar and HEIR.

use std::time::Duration;

use http::StatusCode;

use crate::failure::{ErrorCode, Failure};

/// A call to HEIR that brought nothing usable.
#[derive(Debug, thiserror::Error)]
pub enum HeirError {
    /// The breaker is open, or HEIR asked for a pause.
    #[error("HEIR is left alone for another {} ms after it failed repeatedly", retry_in.as_millis())]
    Paused {
        /// Time until the next attempt is allowed.
        retry_in: Duration,
    },
    /// No connection could be made.
    #[error("HEIR cannot be reached")]
    Connect(#[source] hyper_util::client::legacy::Error),
    /// As many calls are under way as the pool allows.
    #[error("all connections to HEIR are busy")]
    PoolExhausted,
    /// Head or body did not arrive in time.
    #[error("HEIR did not answer within {} ms", after.as_millis())]
    Timeout {
        /// The time-out that passed.
        after: Duration,
    },
    /// The connection broke after it was made.
    #[error("the connection to HEIR broke")]
    Interrupted(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An answer that is neither what was asked for nor one of the others here.
    #[error("HEIR answered {status}")]
    Status {
        /// The status.
        status: StatusCode,
        /// How long HEIR asked to be left alone.
        retry_after: Option<Duration>,
    },
    /// 404 for everything that HEIR had: an ingress answers for it, or another store stands in its place.
    #[error(
        "HEIR answers 404 for each of the {policies} policies asked for, all of which it had: that is an outage and \
         no deletion, unless POST /admin/refresh?confirm=true says so"
    )]
    NothingKnown {
        /// How many were asked for.
        policies: usize,
    },
    /// 410: the changes since a revision are not known any more.
    #[error("HEIR cannot tell what changed since then{}", if *.restored { ": it was restored from a backup" } else { "" })]
    Gone {
        /// Whether HEIR was restored from a backup, not merely had its history cut short.
        restored: bool,
    },
    /// A redirect.
    #[error("HEIR answered {0}, a redirect; redirects are never followed")]
    Redirect(StatusCode),
    /// The body is longer than the caller takes.
    #[error("HEIR's answer has more than {limit} bytes")]
    TooLarge {
        /// Most bytes that the caller accepts.
        limit: u64,
    },
    /// The body has a content encoding.
    #[error("HEIR's answer is encoded as {0:?}, which was not asked for")]
    Encoded(String),
    /// Something that stands before HEIR answered in its place, with a success.
    #[error("a page of HTML came where HEIR was asked")]
    Page,
    /// The body is not what the contract says.
    #[error("HEIR's answer is not what was asked for: {0}")]
    Invalid(String),
    /// The path or the headers make no request.
    #[error("the request to HEIR could not be built")]
    Request(#[source] http::Error),
}

impl HeirError {
    /// Whether the same call may bring something at another time.
    pub fn is_away(&self) -> bool {
        match self {
            Self::Paused { .. }
            | Self::Connect(_)
            | Self::PoolExhausted
            | Self::Timeout { .. }
            | Self::NothingKnown { .. }
            | Self::Page
            | Self::Interrupted(_) => true,
            // 501 is not an outage: this HEIR does not have the call, now or later.
            Self::Status { status, .. } => {
                (status.is_server_error() && *status != StatusCode::NOT_IMPLEMENTED)
                    || *status == StatusCode::TOO_MANY_REQUESTS
            }
            Self::Gone { .. }
            | Self::Redirect(_)
            | Self::TooLarge { .. }
            | Self::Encoded(_)
            | Self::Invalid(_)
            | Self::Request(_) => false,
        }
    }

    /// Whether another attempt right away makes sense for a read.
    pub fn is_retryable(&self) -> bool {
        self.is_away()
            && !matches!(self, Self::Paused { .. } | Self::PoolExhausted)
            && !matches!(
                self,
                Self::Status {
                    status: StatusCode::TOO_MANY_REQUESTS,
                    ..
                }
            )
    }

    /// Whether nothing was heard any more, as opposed to an end that was told: of an answer, or of the connection.
    pub(super) fn is_silence(&self) -> bool {
        matches!(self, Self::Timeout { .. }) || self.is_lost()
    }

    /// Whether the system gave up a connection because the other end acknowledged nothing any more.
    pub(super) fn is_lost(&self) -> bool {
        let Self::Interrupted(error) = self else {
            return false;
        };
        std::iter::successors(Some(&**error as &(dyn std::error::Error + 'static)), |error| {
            error.source()
        })
        .filter_map(|error| error.downcast_ref::<std::io::Error>())
        .any(|error| error.kind() == std::io::ErrorKind::TimedOut)
    }

    /// 404, and nothing else about it.
    pub fn not_found() -> Self {
        Self::Status {
            status: StatusCode::NOT_FOUND,
            retry_after: None,
        }
    }

    /// Whether HEIR answered 404.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self,
            Self::Status {
                status: StatusCode::NOT_FOUND,
                ..
            }
        )
    }

    /// Whether the call is one that this HEIR does not have (contract: 404, 405, 501).
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self,
            Self::Status {
                status: StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED,
                ..
            }
        )
    }

    /// The `outcome` label of the metric.
    pub fn outcome(&self) -> &'static str {
        match self {
            Self::Paused { .. } => "paused",
            Self::Connect(_) => "connect_error",
            Self::PoolExhausted => "pool_exhausted",
            Self::Timeout { .. } => "timeout",
            Self::Interrupted(_) => "interrupted",
            Self::Status { status, .. } if status.is_server_error() => "server_error",
            Self::Status { .. } => "client_error",
            Self::NothingKnown { .. } => "not_found",
            Self::Gone { .. } => "gone",
            Self::Redirect(_) => "redirect",
            Self::TooLarge { .. } => "too_large",
            Self::Encoded(_) | Self::Page | Self::Invalid(_) => "invalid",
            Self::Request(_) => "request",
        }
    }

    /// The answer to a client whose request could only be answered by HEIR.
    pub fn failure(&self) -> Failure {
        match self {
            Self::Timeout { .. } => {
                Failure::new(ErrorCode::HeirTimeout, self.to_string()).retry_after_seconds(1)
            }
            Self::Paused { retry_in } => Failure::new(ErrorCode::HeirUnavailable, self.to_string())
                .retry_after_seconds(retry_in.as_secs() + 1),
            error if error.is_away() => {
                Failure::new(ErrorCode::HeirUnavailable, error.to_string()).retry_after_seconds(1)
            }
            error => Failure::new(ErrorCode::HeirError, error.to_string()),
        }
    }

    /// The error and its causes in one line, for the log.
    pub fn chain(&self) -> String {
        crate::telemetry::chain(self)
    }
}
