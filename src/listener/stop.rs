//! How a listener is told to end.

use tokio_util::sync::CancellationToken;

/// How a listener ends, in two steps: `draining` tells clients to go elsewhere (every answer carries
/// `Connection: close`) while everything is still served; `closing` stops accepting and ends connections after
/// the answer they are busy with.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    /// Step 1: requests are served, and every answer carries `Connection: close`.
    pub draining: CancellationToken,
    /// Step 2: no new connections, and each open one ends after its current answer.
    pub closing: CancellationToken,
}
