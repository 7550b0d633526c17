//! The use cases of decisions, free of any transport: a request is read, admitted, decided on and recorded here, and
//! HTTP, gRPC or NATS translate what comes in and goes out.
//!
//! ```text
//!  request (bytes ─► typed) ─► entry: admit ─► find: the policy, from memory or HEIR ─► decide ─► record ─► reply
//!  dry_run: the same without effects        results: what became of calls, once each (idempotency)
//!  waiting: places of requests that wait    buffered: memory for bodies
//! ```

mod broken_version;
mod buffered;
mod decide;
mod dry_run;
mod entry;
mod find;
mod idempotency;
mod metrics;
mod record;
mod reply;
mod request;
mod results;
mod waiting;

pub use buffered::{BufferedBytes, Client, Room, UNCOUNTED};
pub use decide::{Decided, Explain, Options};
pub use dry_run::{DryRun, DryRunRequest};
pub use entry::Intake;
pub use find::{SnapshotStamp, expired};
pub use metrics::IntakeMetrics;
pub use request::{DecideRequest, InvalidDecideRequest};
pub use results::{Accepted, ExecResults};
pub use waiting::{Place, WaitingRequests};
