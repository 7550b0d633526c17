//! The act that the test asks for.

use beamline_extension_sdk::{Extension, Problem};
use serde::Deserialize;
use serde_json::Value;

use crate::{Misbehaving, acts};

/// The configuration. Every key has a default, so `{}` is an extension that behaves.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// What each call does.
    #[serde(rename = "do")]
    pub deed: Deed,
    /// What `check-config` does before it answers: only deeds that need no answer of their own.
    pub check: Deed,
    /// How large an answer `huge-output` and `many-items` give, and where `allocate` stops: in bytes, 0 for never.
    pub bytes: usize,
    /// How often `spin` goes round.
    pub iterations: u64,
    /// The provider that `favour` leaves alone in the draw.
    pub provider: String,
    /// Makes the configuration wrong, in two places.
    pub bad: bool,
    /// Anything: `echo` repeats it.
    pub note: Value,
}

/// What can be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[expect(
    missing_docs,
    reason = "README.md describes each, by the name it has in configurations"
)]
pub enum Deed {
    // It behaves.
    #[default]
    Ok,
    Change,
    Echo,
    Remember,
    Random,
    Clock,
    #[serde(alias = "sleep-ms")]
    Spin,
    // It does not come back, or not by itself.
    Loop,
    LoopInHost,
    Recurse,
    Allocate,
    Trap,
    Panic,
    // It asks too much of the host.
    FloodLog,
    CountMetrics,
    HugeOutput,
    // Its answer breaks the contract.
    BadJson,
    NoObject,
    Failure,
    BadFailureCode,
    NanFactor,
    InfiniteFactor,
    NegativeFactor,
    MissingScore,
    UnknownScore,
    DuplicateScore,
    // Its answer keeps the contract and is unpleasant.
    ManyItems,
    ZeroScores,
    Favour,
    Tenant,
}

impl Extension for Misbehaving {
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        acts::act(config.check, config);
        if !config.bad {
            return Vec::new();
        }
        vec![
            Problem::new("/bad", "must not be true"),
            Problem::new("/note", "goes with what is bad"),
        ]
    }
}

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::Json;

    use super::*;

    fn paths(config: &str) -> Vec<String> {
        let problems = Misbehaving::check_config(&Json::from_text(config)).unwrap_err();
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn what_is_bad_is_told_in_two_places() {
        assert_eq!(paths(r#"{"bad": true, "do": "loop"}"#), ["/bad", "/note"]);
    }

    #[test]
    fn deeds_are_accepted_by_name_and_only_those() {
        for name in [
            "ok",
            "loop-in-host",
            "sleep-ms",
            "spin",
            "bad-failure-code",
            "tenant",
        ] {
            let config = Json::from_text(format!(r#"{{"do": "{name}"}}"#));
            assert_eq!(Misbehaving::check_config(&config), Ok(()), "{name}");
        }
        assert_eq!(paths(r#"{"do": "dance"}"#), ["/do"]);
    }
}
