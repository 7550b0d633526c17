//! The health of extensions: what is known of each from its calls, whether it may be called, and where.
//!
//! Two things block an extension, each for the tenant whose calls it counts. The **breaker** (off unless configured) counts
//! every failure and opens for a fixed time. The **quarantine** (always on) counts only crashes, and doubles with each further
//! one; a second one, for all tenants, begins when the calls of several crash in a row.

mod breaker;
mod extension;
mod latency;
mod outcome;
mod quarantine;
mod report;
mod standings;
mod table;
mod target;

pub use self::{
    extension::ExtensionHealth,
    report::{BlockedTenant, BreakerReport, HealthReport, LastTrap, VersionHealth},
    target::TargetHealth,
};
pub(in crate::extensions) use self::{
    extension::Permit,
    outcome::{Admitted, Blocked, CallOutcome, Change, Cost, Recorded},
    table::HealthTable,
};
