//! The interface between a listener and the code that answers.

use std::{fmt, future::Future, pin::Pin, sync::Arc};

use hyper::body::Incoming;

use super::address::Peer;
use crate::respond::Response;

/// Answers requests. A lookup answers at once; an answer that must wait is a future.
pub trait Handler: Send + Sync + 'static {
    /// Answers one request.
    fn handle(self: &Arc<Self>, request: http::Request<Incoming>, peer: Peer) -> Reply;
}

/// An answer, or the wait for one.
pub enum Reply {
    /// The answer is complete.
    Ready(Response),
    /// The answer is pending; the future must be polled.
    Later(Pin<Box<dyn Future<Output = Response> + Send>>),
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Ready(_) => "Ready",
            Self::Later(_) => "Later",
        })
    }
}
