//! A provider's breaker (5.1 to 5.3). Its window is never left here: the cases are shorter.

use serde_json::Value;

#[derive(Debug, Clone, Copy)]
pub(super) struct Settings {
    failure_threshold: u64,
    success_threshold: u64,
    timeout_ms: u64,
    half_open_max_calls: u64,
    error_rate_threshold: f64,
    error_rate_min_requests: usize,
}

impl Settings {
    /// Clamped, as a load does it (1.9); `None` where the feature is off.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let whole = |key: &str, default: u64, least: u64, most: u64| {
            object[key].as_u64().unwrap_or(default).clamp(least, most)
        };
        (object["enabled"] == true).then(|| Self {
            failure_threshold: whole("failure_threshold", 5, 1, 100),
            success_threshold: whole("success_threshold", 2, 1, 10),
            timeout_ms: whole("timeout_ms", 60_000, 1_000, 300_000),
            half_open_max_calls: whole("half_open_max_calls", 3, 1, 100),
            error_rate_threshold: object["error_rate_threshold"].as_f64().unwrap_or(0.5),
            error_rate_min_requests: 5,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Closed,
    Open,
    HalfOpen,
}

#[derive(Debug)]
pub(super) struct Breaker {
    pub(super) state: State,
    pub(super) settings: Settings,
    changed_at: u64,
    /// Since when nothing came of the calls that were let through.
    quiet_since: u64,
    failures: u64,
    successes: u64,
    calls: u64,
    /// Whether each result was a failure.
    window: Vec<bool>,
}

impl Breaker {
    pub(super) fn closed(settings: Settings, now: u64) -> Self {
        Self {
            state: State::Closed,
            settings,
            changed_at: now,
            quiet_since: now,
            failures: 0,
            successes: 0,
            calls: 0,
            window: Vec::new(),
        }
    }

    fn change(&mut self, to: State, now: u64) {
        (self.state, self.changed_at, self.quiet_since, self.calls) = (to, now, now, 0);
    }

    fn is_due(&self, now: u64) -> bool {
        now - self.changed_at >= self.settings.timeout_ms
    }

    fn has_budget(&self, now: u64) -> bool {
        self.calls < self.settings.half_open_max_calls || now - self.quiet_since >= self.settings.timeout_ms
    }

    /// Whether a call would be let through.
    pub(super) fn allows(&self, now: u64) -> bool {
        match self.state {
            State::Closed => true,
            State::Open => self.is_due(now),
            State::HalfOpen => self.has_budget(now),
        }
    }

    /// Lets a call through that is allowed.
    pub(super) fn admit(&mut self, now: u64) {
        if self.state == State::Open {
            self.change(State::HalfOpen, now);
            self.failures = 0;
        }
        if self.state == State::HalfOpen {
            if self.calls >= self.settings.half_open_max_calls {
                (self.calls, self.quiet_since) = (0, now);
            }
            self.calls += 1;
        }
    }

    pub(super) fn record(&mut self, failed: bool, now: u64) {
        self.window.push(failed);
        self.quiet_since = now;
        match (self.state, failed) {
            (State::Closed | State::Open, false) => self.failures = 0,
            (State::HalfOpen, false) => {
                self.successes += 1;
                if self.successes >= self.settings.success_threshold {
                    self.change(State::Closed, now);
                    (self.failures, self.successes) = (0, 0);
                    self.window.clear();
                }
            }
            (State::Closed, true) => {
                self.failures += 1;
                let total = self.window.len();
                let failed = self.window.iter().filter(|failed| **failed).count();
                let rate = failed as f64 / total as f64;
                let by_rate = total >= self.settings.error_rate_min_requests
                    && rate >= self.settings.error_rate_threshold;
                if self.failures >= self.settings.failure_threshold || by_rate {
                    self.change(State::Open, now);
                }
            }
            (State::Open, true) => self.failures += 1,
            (State::HalfOpen, true) => {
                self.change(State::Open, now);
                (self.failures, self.successes) = (1, 0);
            }
        }
    }
}
