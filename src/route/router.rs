//! What the data plane answers from.

use std::sync::Arc;

use super::metrics::RouteMetrics;
use crate::{
    failure::Failure,
    forward::Forwarder,
    heir::HeirClient,
    intake::{Intake, WaitingRequests},
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
    pub client: Arc<HeirClient>,
    pub fetcher: Arc<Fetcher>,
    pub refresher: Arc<Refresher>,
    pub forwarder: Forwarder,
}

/// The data plane.
#[derive(Debug)]
pub struct Router {
    pub(super) store: Arc<SnapshotStore>,
    pub(super) upstream: Option<Upstream>,
    pub(super) writer: Arc<Writer>,
    pub(super) readiness: Arc<Readiness>,
    pub(super) limits: LimitsConfig,
    pub(super) metrics: Arc<RouteMetrics>,
    pub(super) intake: Arc<Intake>,
    pub(super) waiting: Arc<WaitingRequests>,
}

impl Router {
    pub fn new(
        store: Arc<SnapshotStore>,
        upstream: Option<Upstream>,
        writer: Arc<Writer>,
        readiness: Arc<Readiness>,
        limits: LimitsConfig,
        metrics: Arc<RouteMetrics>,
        intake: Arc<Intake>,
        waiting: Arc<WaitingRequests>,
    ) -> Arc<Self> {
        Arc::new(Self {
            store,
            upstream,
            writer,
            readiness,
            limits,
            metrics,
            intake,
            waiting,
        })
    }

    /// The answer to a request that failed, counted.
    pub(super) fn fail(&self, failure: Failure) -> Response {
        self.metrics.error(failure.code);
        respond::failure(failure)
    }
}
