//! Metrics of the calls to HEIR.

use prometheus::{HistogramVec, IntCounterVec, IntGauge, Registry};

use crate::telemetry::registry::{SECONDS, counters, gauge, histograms};

/// Calls to HEIR, as the `call` label names them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeirCall {
    /// `GET /health`.
    Health,
    /// One policy.
    Get,
    /// A write.
    Put,
    /// A deletion.
    Delete,
    /// A tenant's policies.
    List,
    /// Everything.
    Snapshot,
    /// What changed since a revision.
    Changes,
    /// An extension's module.
    Module,
    /// A request that is passed on.
    Forward,
    /// A request that is passed on and that HEIR may take long to answer, because it was asked to wait.
    ForwardedPoll,
}

impl HeirCall {
    /// The label.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Health => "health",
            Self::Get => "get",
            Self::Put => "put",
            Self::Delete => "delete",
            Self::List => "list",
            Self::Snapshot => "snapshot",
            Self::Changes => "changes",
            Self::Module => "module",
            Self::Forward | Self::ForwardedPoll => "forward",
        }
    }

    /// Whether a client asks, and not this process. What comes of it says more of the client than of HEIR.
    pub const fn is_forwarded(self) -> bool {
        matches!(self, Self::Forward | Self::ForwardedPoll)
    }

    /// Whether HEIR may wait before it answers.
    pub const fn is_poll(self) -> bool {
        matches!(self, Self::Changes | Self::ForwardedPoll)
    }
}

/// Metrics of the client.
#[derive(Debug)]
pub struct HeirMetrics {
    requests: IntCounterVec,
    duration: HistogramVec,
    /// Where the breaker stands.
    pub breaker_state: IntGauge,
    /// 1 if the last call was answered, and not with a refusal of the token or the certificate.
    pub up: IntGauge,
}

impl HeirMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When a name is taken.
    pub fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            requests: counters(
                r,
                "beamline_sidecar_heir_requests_total",
                "Requests to HEIR by call and outcome.",
                &["call", "outcome"],
            )?,
            duration: histograms(
                r,
                "beamline_sidecar_heir_request_duration_seconds",
                "Time until HEIR's answer begins; long polls are not observed.",
                &["call"],
                SECONDS,
            )?,
            breaker_state: gauge(
                r,
                "beamline_sidecar_heir_breaker_state",
                "Breaker towards HEIR: 0 closed, 1 open, 2 half open.",
            )?,
            up: gauge(
                r,
                "beamline_sidecar_heir_up",
                "1 if the last call to HEIR was answered, and not with a refusal of the token or the certificate.",
            )?,
        })
    }

    /// Counts a call that ended; `seconds` until its answer began, where that is worth a histogram.
    pub fn request(&self, call: HeirCall, outcome: &str, seconds: Option<f64>) {
        self.requests.with_label_values(&[call.as_str(), outcome]).inc();
        if let Some(seconds) = seconds {
            self.duration.with_label_values(&[call.as_str()]).observe(seconds);
        }
    }
}
