//! What the data plane answers from.

use std::{future::Future, sync::Arc};

use tokio::{runtime::Handle, task::JoinError};

use super::metrics::RouteMetrics;
use crate::{
    failure::{ErrorCode, Failure},
    forward::Forwarder,
    heir::HeirClient,
    intake::{BufferedBytes, Intake, WaitingRequests},
    listener::LimitsConfig,
    readiness::Readiness,
    refresh::{Fetcher, Refresher},
    respond::{self, Response},
    snapshot::SnapshotStore,
    write::Writer,
};

/// What exists only where there is a HEIR.
#[derive(Debug)]
pub struct Upstream {
    /// The client of HEIR.
    pub client: Arc<HeirClient>,
    /// Fetches single policies.
    pub fetcher: Arc<Fetcher>,
    /// Keeps the snapshot equal to HEIR.
    pub refresher: Arc<Refresher>,
    /// Passes other requests on.
    pub forwarder: Forwarder,
}

/// The data plane.
#[derive(Debug)]
pub struct Router {
    /// The snapshot that lookups are answered from.
    pub store: Arc<SnapshotStore>,
    /// `None`: there is no HEIR.
    pub upstream: Option<Upstream>,
    /// Writes of policies.
    pub writer: Arc<Writer>,
    /// What `GET /health` reports.
    pub readiness: Arc<Readiness>,
    /// Limits on requests.
    pub limits: LimitsConfig,
    /// Metrics of the answers.
    pub metrics: Arc<RouteMetrics>,
    /// Decisions.
    pub intake: Arc<Intake>,
    /// The bound on requests that wait.
    pub waiting: Arc<WaitingRequests>,
    /// The bound on bodies in memory.
    pub buffered: Arc<BufferedBytes>,
    /// The threads for what takes longer than a lookup may wait.
    pub work: Handle,
}

impl Router {
    /// Does work on the threads for it, and to its end, even if the caller leaves: what it holds, such as a place, is held
    /// until then.
    pub(super) async fn elsewhere<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
    ) -> Result<T, Failure> {
        let lost = |error: JoinError| Failure::new(ErrorCode::InternalError, error.to_string());
        self.work.spawn(work).await.map_err(lost)?
    }

    /// The answer to a request that failed, counted.
    pub(super) fn fail(&self, failure: Failure) -> Response {
        self.metrics.error(failure.code);
        respond::failure(failure)
    }
}
