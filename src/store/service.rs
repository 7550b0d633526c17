//! The state that all calls of the API share.

use std::{sync::Arc, time::Duration};

use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    db::Db,
    error::{CallError, DbError},
    snapshot::Snapshots,
    token::Token,
};
use crate::{heir::Level, intake::BufferedBytes};

/// The service that answers the requests.
pub(super) struct Service {
    pub(super) db: Arc<Db>,
    pub(super) snapshots: Arc<Snapshots>,
    pub(super) level: Level,
    pub(super) token: Arc<Token>,
    /// Whether documents are stored that every sidecar sets aside.
    pub(super) allow_invalid: bool,
    pub(super) max_body_bytes: usize,
    pub(super) max_module_bytes: usize,
    /// For how long a body may be sent, apart from what its size takes.
    pub(super) body_timeout: Duration,
    /// The memory for bodies that are being sent or received.
    pub(super) buffered: Arc<BufferedBytes>,
    pub(super) stopping: CancellationToken,
    pub(super) tasks: TaskTracker,
}

impl Service {
    /// Completes the work even if the client disconnects. A write, above all, must not stop half-way.
    pub(super) async fn to_the_end<T: Send + 'static>(
        &self,
        work: impl Future<Output = Result<T, CallError>> + Send + 'static,
    ) -> Result<T, CallError> {
        self.tasks.spawn(work).await.map_err(DbError::from)?
    }
}
