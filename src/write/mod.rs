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

mod absence;
mod check;
mod config;
mod entry;
mod heir_policy;
mod journal;
mod journal_files;
mod ledger;
mod ledger_file;
mod lost;
mod metrics;
mod pending;
mod replay;
mod request;
mod settle;
mod writer;

pub use check::invalid_policy;
pub use config::{Validate, WhenHeirDown, WritesConfig};
pub use entry::{Base, Entry, EntryId, JournalError, Operation, Reason, State, Stored, Trouble};
pub use heir_policy::IDEMPOTENCY_KEY;
pub use journal::Journal;
pub use ledger::Ledger;
pub use metrics::WriteMetrics;
pub use pending::Amounts;
pub use request::{Change, Effect, Made, Precondition, Versions, WriteOutcome, WriteRequest};
pub use writer::Writer;
