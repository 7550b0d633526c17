//! Active checks of the health of providers, so that a decision can leave out those that fail them.
//!
//! Off unless configured. The addresses come from the operator, or from policies if the operator lists their hosts;
//! redirects are not followed, and only the status of an answer counts. An address is requested once per interval,
//! however many tenants name it.

mod address;
mod checker;
mod config;
mod metrics;
mod probe;
mod runner;
mod schedule;
mod targets;

pub use address::InvalidAddress;
pub use checker::{CheckerError, HealthChecker};
pub use config::HealthChecksConfig;
pub use metrics::HealthCheckMetrics;
