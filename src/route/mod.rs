//! From a request to its answer: the one place that knows paths and methods.
//!
//! A lookup is answered synchronously, from one load of the snapshot. A bounded number of requests wait for HEIR or the
//! disk; what reads documents or builds lists is done on other threads than those that answer lookups.

mod body;
mod decide;
mod dispatch;
mod guard;
mod headers;
mod health;
mod list;
mod lookup;
mod metrics;
mod path;
mod router;
mod write;

pub use headers::{FRESHNESS, SNAPSHOT_AGE_MS, SNAPSHOT_REVISION, SOURCE, STALE, WRITE};
pub use metrics::RouteMetrics;
pub use path::{InvalidPath, PathId, Target};
pub use router::{Router, Upstream};
