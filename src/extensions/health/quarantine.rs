//! The quarantine of an extension that keeps crashing.

use std::time::Duration;

use super::outcome::Blocked;
use crate::{clock::Timestamp, extensions::config::ExtensionsConfig};

/// Whether crashes block an extension, and until when.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Quarantine {
    crashes_in_row: u32,
    /// How often it began without a success in between.
    times: u32,
    until: Option<Timestamp>,
    /// One call is admitted after the pause, and decides.
    probing: bool,
}

impl Quarantine {
    /// Whether the call is the probe that decides.
    pub(super) fn admit(&mut self, now: Timestamp) -> Result<bool, Blocked> {
        let Some(until) = self.until else {
            return Ok(false);
        };
        if now < until || self.probing {
            return Err(Blocked::Quarantined);
        }
        self.probing = true;
        Ok(true)
    }

    /// A call is over, or was not made. If it was the probe, another call may be.
    pub(super) fn withdraw(&mut self, probe: bool) {
        if probe {
            self.probing = false;
        }
    }

    pub(super) fn succeeded(&mut self, probe: bool) {
        if self.until.is_none() || probe {
            *self = Self::default();
        }
    }

    pub(super) fn failed(&mut self, probe: bool) {
        if probe {
            self.probing = false;
            // A failure is not a crash: the pause is over, and the length of the next one stays known.
            self.until = None;
        }
    }

    /// A call crashed. Returns how long the quarantine is that begins with it. None begins where the crashes in a row are not
    /// `enough` for another reason than their number.
    pub(super) fn crashed(
        &mut self,
        config: &ExtensionsConfig,
        now: Timestamp,
        probe: bool,
        enough: bool,
    ) -> Option<Duration> {
        self.crashes_in_row = self.crashes_in_row.saturating_add(1);
        if probe {
            self.probing = false;
        } else if !enough || self.crashes_in_row < config.quarantine_after || self.until.is_some() {
            // The second: a call that was running when the quarantine began.
            return None;
        }
        let doubled = config.quarantine_ms.saturating_mul(1_u64 << self.times.min(32));
        let pause = doubled.min(config.max_quarantine_ms);
        self.times = self.times.saturating_add(1);
        self.until = Some(Timestamp::from_unix_ms(now.unix_ms.saturating_add(pause)));
        Some(Duration::from_millis(pause))
    }

    /// When it ends, if it has not ended.
    pub(super) fn until(&self, now: Timestamp) -> Option<Timestamp> {
        self.until.filter(|until| *until > now)
    }
}
