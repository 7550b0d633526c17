//! The log filter.

use schemars::JsonSchema;
use serde::Serialize;

use super::operator::Operator;
use crate::failure::{ErrorCode, Failure};

/// The log filter in force.
#[derive(Debug, Clone, Serialize, JsonSchema)]
pub struct LogFilter {
    /// In the form of the key `log.filter`.
    pub filter: String,
}

impl Operator {
    /// The log filter in force.
    pub fn log_filter(&self) -> LogFilter {
        LogFilter {
            filter: self.logs.filter(),
        }
    }

    /// Changes the log filter until the next change of the configuration or start, and returns it.
    ///
    /// # Errors
    /// `invalid_request`: the text is no filter.
    pub fn set_log_filter(&self, filter: &str) -> Result<LogFilter, Failure> {
        let filter = filter.trim();
        self.logs
            .set_filter(filter)
            .map_err(|reason| Failure::new(ErrorCode::InvalidRequest, reason))?;
        tracing::info!(filter, "The log filter was changed.");
        Ok(self.log_filter())
    }
}
