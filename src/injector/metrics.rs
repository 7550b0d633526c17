//! Metrics of the injector.

use prometheus::{HistogramVec, IntCounterVec, IntGauge, IntGaugeVec, Registry};

use crate::telemetry::registry::{SECONDS, counters, gauge, gauges, histograms};

/// What the injector reports.
#[derive(Debug)]
pub(super) struct InjectorMetrics {
    /// Reviews, by what was decided.
    pub(super) reviews: IntCounterVec,
    /// How long reviews took, from the complete body to the answer.
    pub(super) review_seconds: HistogramVec,
    /// When the certificate in use expires; 0 where its file is not ours.
    pub(super) certificate_expires: IntGauge,
    /// Rounds of the certificates' rotation, by what came of them.
    pub(super) rotations: IntCounterVec,
    /// The fragment in use.
    pub(super) fragment: IntGaugeVec,
}

impl InjectorMetrics {
    /// Registers the families.
    ///
    /// # Errors
    /// When a name is taken.
    pub(super) fn register(r: &Registry) -> Result<Self, prometheus::Error> {
        Ok(Self {
            reviews: counters(
                r,
                "beamline_sidecar_inject_reviews_total",
                "Admission reviews, by what was decided.",
                &["outcome"],
            )?,
            review_seconds: histograms(
                r,
                "beamline_sidecar_inject_review_seconds",
                "Seconds from a review's complete body to its answer.",
                &["outcome"],
                SECONDS,
            )?,
            certificate_expires: gauge(
                r,
                "beamline_sidecar_inject_cert_expiry_timestamp_seconds",
                "When the certificate in use expires, in seconds since 1970; 0 where the injector does not make it.",
            )?,
            rotations: counters(
                r,
                "beamline_sidecar_inject_rotations_total",
                "Looks at the certificates, by what came of them.",
                &["outcome"],
            )?,
            fragment: gauges(
                r,
                "beamline_sidecar_inject_fragment_info",
                "1 for the fragment in use.",
                &["version", "sha256"],
            )?,
        })
    }
}
