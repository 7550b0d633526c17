//! The health of extensions: what is known of each from its calls, and whether it may be called.
//!
//! Two things block an extension. Its **breaker** (off unless configured) counts every failure and opens for a fixed time.
//! Its **quarantine** (always on) counts only crashes, and doubles with each further one.

mod breaker;
mod extension;
mod latency;
mod outcome;
mod quarantine;
mod report;
mod table;

pub use self::{
    extension::ExtensionHealth,
    report::{BreakerReport, HealthReport, LastTrap},
};
pub(in crate::extensions) use self::{
    extension::Permit,
    outcome::{Admitted, Blocked, CallOutcome, Change},
    table::HealthTable,
};
