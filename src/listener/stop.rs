//! How a listener is told to end.

use tokio_util::sync::CancellationToken;

/// How a listener ends, in two steps: `draining` tells clients to go elsewhere (every answer carries
/// `Connection: close`) while everything is still served; `closing` stops accepting and ends connections after
/// the answer they are busy with.
#[derive(Debug, Clone, Default)]
pub struct Stop {
    pub draining: CancellationToken,
    pub closing: CancellationToken,
}
