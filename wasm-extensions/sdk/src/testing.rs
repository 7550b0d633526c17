//! A host for native tests: it keeps what was logged and counted, and its clock and chance are set by
//! the test. There is one for each thread, so tests do not see each other.
//!
//! ```
//! use beamline_extension_sdk::{clock, log, testing};
//!
//! testing::set_now_ms(1_000);
//! log::info(&format!("it is {}", clock::now_ms()));
//! assert_eq!(testing::lines(), ["it is 1000"]);
//! ```

use std::{cell::RefCell, collections::BTreeMap};

use serde_json::Value;

use crate::{Call, Json, Message, log::Level};

#[derive(Debug, Default)]
pub(crate) struct Host {
    pub(crate) lines: Vec<(Level, String)>,
    pub(crate) counters: BTreeMap<String, u64>,
    pub(crate) now_ms: u64,
    chance: u64,
}

impl Host {
    /// SplitMix64: any seed will do.
    pub(crate) fn next_u64(&mut self) -> u64 {
        self.chance = self.chance.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.chance;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }
}

thread_local! {
    static HOST: RefCell<Host> = RefCell::default();
}

pub(crate) fn with<T>(use_host: impl FnOnce(&mut Host) -> T) -> T {
    HOST.with_borrow_mut(use_host)
}

/// Forgets all that was logged, counted and set.
pub fn reset() {
    with(|host| *host = Host::default());
}

/// Sets the time, in milliseconds since 1970.
pub fn set_now_ms(now_ms: u64) {
    with(|host| host.now_ms = now_ms);
}

/// Starts the sequence of chance anew.
pub fn seed(seed: u64) {
    with(|host| host.chance = seed);
}

/// What was logged, without levels.
pub fn lines() -> Vec<String> {
    with(|host| host.lines.iter().map(|(_, line)| line.clone()).collect())
}

/// What was logged at a level.
pub fn lines_at(level: Level) -> Vec<String> {
    let at = |(of, line): &(Level, String)| (*of == level).then(|| line.clone());
    with(|host| host.lines.iter().filter_map(at).collect())
}

/// What was counted under a name.
pub fn counted(name: &str) -> u64 {
    with(|host| host.counters.get(name).copied().unwrap_or(0))
}

/// A call with this configuration and otherwise ordinary circumstances, to be changed as a test needs.
pub fn call<C>(config: C) -> Call<C> {
    Call {
        tenant_id: "tenant".into(),
        policy_id: "policy".into(),
        trace_id: "trace".into(),
        request_id: "request".into(),
        context: Json::from_text(r#"{"tenant_id":"tenant"}"#),
        config,
        remaining_ms: 100,
    }
}

/// A message with this payload.
pub fn message(payload: &Value) -> Message {
    Message {
        message_id: "message".into(),
        message_type: "unknown".into(),
        payload: payload.into(),
        metadata: Json::empty_object(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{clock, log, metrics};

    #[test]
    fn keeps_what_was_logged_and_counted() {
        reset();
        log::warn("odd");
        log::debug("seen");
        metrics::count("found", 2);
        metrics::count("found", 3);
        assert_eq!(lines(), ["odd", "seen"]);
        assert_eq!(lines_at(Level::Warn), ["odd"]);
        assert_eq!((counted("found"), counted("other")), (5, 0));
        reset();
        assert!(lines().is_empty());
        assert_eq!(counted("found"), 0);
    }

    #[test]
    fn the_time_is_what_the_test_says() {
        set_now_ms(1_234);
        assert_eq!(clock::now_ms(), 1_234);
    }

    #[test]
    fn threads_do_not_see_each_other() {
        reset();
        log::info("here");
        let elsewhere = std::thread::spawn(lines).join().unwrap();
        assert!(elsewhere.is_empty());
    }
}
