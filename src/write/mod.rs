//! PUT and DELETE: forwarded to HEIR, or kept in a durable journal until HEIR is back.
//!
//! Either way the caller's next lookup through this sidecar sees the write before the reply is sent. Writes to one
//! policy go one after the other, whichever caller makes them.
//!
//! ```text
//!  WriteRequest ─► writer ─┬─ HEIR answers ─► ledger, snapshot ─► WriteOutcome
//!                          └─ HEIR is away ─► journal, snapshot ─► WriteOutcome::Queued
//!  journal ─► replay ─► HEIR        settle: the operator's part        lost: what a restored HEIR has forgotten
//! ```

mod check;
mod config;
mod heir_policy;
mod journal;
mod ledger;
mod lost;
mod metrics;
mod replay;
mod request;
mod settle;
mod writer;

pub use check::invalid_policy;
pub use config::{Validate, WhenHeirDown, WritesConfig};
pub use heir_policy::IDEMPOTENCY_KEY;
pub use journal::{Base, Entry, EntryId, Journal, JournalError, Operation, Reason, State};
pub use ledger::Ledger;
pub use metrics::WriteMetrics;
pub use request::{Change, Effect, Made, Precondition, Versions, WriteOutcome, WriteRequest};
pub use writer::Writer;
