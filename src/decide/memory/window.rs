//! The results of the last seconds, counted per second: as many counters as the window has seconds with results.

use std::collections::VecDeque;

use super::classify::CallResult;
use crate::clock::Timestamp;

#[derive(Debug, Clone, Copy)]
struct Second {
    at: u64,
    failures: u32,
    total: u32,
}

/// A sliding window. A result belongs to it from its own second to the one that lies the window's length later.
#[derive(Debug, Clone, Default)]
pub(crate) struct Window {
    seconds: VecDeque<Second>,
    failures: u32,
    total: u32,
}

/// 0 where there was nothing.
pub(super) fn rate(failures: u32, total: u32) -> f64 {
    if total == 0 {
        0.0
    } else {
        f64::from(failures) / f64::from(total)
    }
}

impl Window {
    /// Counts a result, and forgets those that have left a window of `length` seconds.
    pub(crate) fn push(&mut self, result: CallResult, length: u32, now: Timestamp) {
        self.prune(length, now);
        let at = now.unix_ms / 1_000;
        // A result from before the last one, as threads bring them, counts with the last one.
        if self.seconds.back().is_none_or(|last| last.at < at) {
            self.seconds.push_back(Second {
                at,
                failures: 0,
                total: 0,
            });
        }
        if let Some(last) = self.seconds.back_mut()
            && self.total < u32::MAX
        {
            let failed = u32::from(result == CallResult::Failure);
            last.failures += failed;
            last.total += 1;
            self.failures += failed;
            self.total += 1;
        }
    }

    pub(super) fn prune(&mut self, length: u32, now: Timestamp) {
        let now = now.unix_ms / 1_000;
        let length = u64::from(length);
        if self
            .seconds
            .back()
            .is_some_and(|last| last.at > now.saturating_add(length))
        {
            // The clock was set back.
            *self = Self::default();
        }
        while let Some(first) = self.seconds.front()
            && first.at < now.saturating_sub(length)
        {
            self.failures -= first.failures;
            self.total -= first.total;
            self.seconds.pop_front();
        }
    }

    /// Failures and results, as of now.
    pub(super) fn counts(&self, length: u32, now: Timestamp) -> (u32, u32) {
        let from = (now.unix_ms / 1_000).saturating_sub(u64::from(length));
        let old = self.seconds.iter().take_while(|second| second.at < from);
        old.fold((self.failures, self.total), |(failures, total), second| {
            (failures - second.failures, total - second.total)
        })
    }

    pub(super) fn failures(&self) -> u32 {
        self.failures
    }

    /// Results in the window, as of the last change.
    pub(crate) fn total(&self) -> u32 {
        self.total
    }

    /// The share of failures in the window, as of the last change; 0 where there is none.
    pub(crate) fn error_rate(&self) -> f64 {
        rate(self.failures, self.total)
    }
}
