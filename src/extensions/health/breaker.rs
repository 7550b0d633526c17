//! The breaker of an extension: the calls of a window of time, and whether their failures block it. Calls are counted even
//! where the breaker is not enabled.

use super::{
    outcome::{Blocked, Change},
    report::BreakerReport,
};
use crate::{
    clock::Timestamp,
    decide::memory::{CallResult, window::Window},
    extensions::config::ExtensionBreakerConfig,
};

/// The state of one breaker, and the calls that it depends on.
#[derive(Debug, Default)]
pub(super) struct Breaker {
    state: State,
    window: Window,
    failures_in_row: u32,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Closed,
    Open {
        since: Timestamp,
    },
    HalfOpen {
        tried: u32,
    },
}

impl Breaker {
    /// Whether the call is one of those that decide whether a half-open breaker closes.
    pub(super) fn admit(&mut self, config: &ExtensionBreakerConfig, now: Timestamp) -> Result<bool, Blocked> {
        if !config.enabled {
            return Ok(false);
        }
        match &mut self.state {
            State::Closed => Ok(false),
            State::Open { since } if now.since(*since) >= u64::from(config.timeout_seconds) * 1_000 => {
                self.state = State::HalfOpen { tried: 1 };
                Ok(true)
            }
            State::HalfOpen { tried } if *tried < config.half_open_max_requests => {
                *tried += 1;
                Ok(true)
            }
            State::Open { .. } | State::HalfOpen { .. } => Err(Blocked::BreakerOpen),
        }
    }

    /// A call was not made. If it was a trial, another call may be.
    pub(super) fn withdraw(&mut self, trial: bool) {
        if trial && let State::HalfOpen { tried } = &mut self.state {
            *tried = tried.saturating_sub(1);
        }
    }

    /// Counts a call in the window.
    pub(super) fn count(&mut self, config: &ExtensionBreakerConfig, now: Timestamp, success: bool) {
        let result = if success {
            CallResult::Success
        } else {
            CallResult::Failure
        };
        // The window ends with the second that is under way.
        self.window
            .push(result, config.window_seconds.saturating_sub(1), now);
    }

    /// A counted call succeeded. Returns whether the breaker closed.
    pub(super) fn succeeded(&mut self, trial: bool) -> Option<Change> {
        self.failures_in_row = 0;
        if !trial || !matches!(self.state, State::HalfOpen { .. }) {
            return None;
        }
        self.state = State::Closed;
        self.window = Window::default();
        Some(Change::BreakerClosed)
    }

    /// A counted call failed. Returns whether the breaker opened.
    pub(super) fn failed(
        &mut self,
        config: &ExtensionBreakerConfig,
        now: Timestamp,
        trial: bool,
    ) -> Option<Change> {
        self.failures_in_row = self.failures_in_row.saturating_add(1);
        if !config.enabled {
            return None;
        }
        let opens = match self.state {
            State::HalfOpen { .. } => trial,
            State::Open { .. } => false,
            State::Closed => {
                self.failures_in_row >= config.failure_threshold
                    || (self.window.total() >= config.error_rate_min_requests
                        && self.window.error_rate() >= config.error_rate_threshold)
            }
        };
        opens.then(|| {
            self.state = State::Open { since: now };
            Change::BreakerOpened
        })
    }

    /// Whether it blocks calls.
    pub(super) fn is_open(&self) -> bool {
        !matches!(self.state, State::Closed)
    }

    /// How bad it is, compared with another one.
    pub(super) fn badness(&self) -> (u8, u32) {
        let state = match self.state {
            State::Closed => 0,
            State::HalfOpen { .. } => 1,
            State::Open { .. } => 2,
        };
        (state, self.failures_in_row)
    }

    pub(super) fn report(&self, extension_id: &str, quarantined: bool) -> BreakerReport {
        let (state, opened) = match self.state {
            State::Closed => ("closed", None),
            State::Open { since } => ("open", Some(since)),
            State::HalfOpen { .. } => ("half_open", None),
        };
        BreakerReport {
            extension_id: extension_id.to_owned(),
            state,
            opened_at: opened.map(|timestamp| timestamp.on_the_wall().unix_ms),
            failure_count: self.failures_in_row,
            error_rate: self.window.error_rate(),
            quarantined,
        }
    }
}
