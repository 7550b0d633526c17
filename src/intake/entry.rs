//! What every transport holds: the way into decisions.

use std::sync::Arc;

use super::{
    idempotency::SeenResults, metrics::IntakeMetrics, request::DecideRequest, waiting::WaitingRequests,
};
use crate::{
    decide::{DecideConfig, Refusal, Rules, memory::Memory},
    extensions::ExtensionHost,
    failure::{ErrorCode, Failure, IntakeCode},
    refresh::Fetcher,
    snapshot::SnapshotStore,
};

/// Largest request for a decision, in bytes; `limits.max_body_bytes` may be less.
const MAX_REQUEST_BYTES: usize = 1 << 20;

/// The use cases of decisions.
#[derive(Debug)]
pub struct Intake {
    pub(super) store: Arc<SnapshotStore>,
    /// `None`: there is no HEIR to ask for a policy that is not in memory.
    pub(super) fetcher: Option<Arc<Fetcher>>,
    pub(super) waiting: Arc<WaitingRequests>,
    pub(super) memory: Arc<Memory>,
    pub(super) extensions: Arc<ExtensionHost>,
    pub(super) rules: Rules,
    pub(super) environment: String,
    pub(super) log_decisions: bool,
    pub(super) results: SeenResults,
    pub(super) metrics: Arc<IntakeMetrics>,
    allow_seed: bool,
}

impl Intake {
    /// An entry over a snapshot and a memory.
    pub fn new(
        config: &DecideConfig,
        store: Arc<SnapshotStore>,
        fetcher: Option<Arc<Fetcher>>,
        waiting: Arc<WaitingRequests>,
        memory: Arc<Memory>,
        extensions: Arc<ExtensionHost>,
        metrics: Arc<IntakeMetrics>,
    ) -> Self {
        Self {
            store,
            fetcher,
            waiting,
            memory,
            extensions,
            rules: config.rules(),
            environment: config.environment.clone(),
            log_decisions: config.log_decisions,
            results: SeenResults::default(),
            metrics,
            allow_seed: config.allow_seed,
        }
    }

    /// Whether a request may choose the seed of its decision (`decide.allow_seed`).
    pub const fn allows_seed(&self) -> bool {
        self.allow_seed
    }

    /// Reads a request for a decision, in either form of the contract, and admits its tenant.
    ///
    /// # Errors
    /// A request that is too large, is not of the contract's form, or comes for a tenant that may not ask.
    pub fn read<'a>(&self, body: &'a [u8]) -> Result<DecideRequest<'a>, Failure> {
        if body.len() > MAX_REQUEST_BYTES {
            return Err(
                Failure::new(ErrorCode::DecideRequestTooLarge, "Payload size exceeds limit")
                    .intake(IntakeCode::SchemaValidationFailed)
                    .detail("payload_size", body.len())
                    .detail("max_payload_size", MAX_REQUEST_BYTES),
            );
        }
        let request = DecideRequest::parse(body).map_err(|invalid| invalid.failure())?;
        self.admit(&request)?;
        Ok(request)
    }

    /// Checks whether the tenant of a request may ask.
    ///
    /// # Errors
    /// `unauthorized` where `decide.allowed_tenants` does not list it.
    pub fn admit(&self, request: &DecideRequest<'_>) -> Result<(), Failure> {
        self.rules.admit_tenant(&request.tenant).map_err(|refusal| {
            self.metrics.tenants_rejected.inc();
            about(refusal.failure().intake(IntakeCode::TenantForbidden), request)
        })
    }
}

/// Names the request in the failure.
pub(super) fn about(failure: Failure, request: &DecideRequest<'_>) -> Failure {
    failure.about(Some(&request.request_id), request.trace_id.as_deref())
}

/// What the decision refused, as the answer to this request.
pub(super) fn refused(refusal: &Refusal, request: &DecideRequest<'_>) -> Failure {
    about(refusal.failure(), request)
}
