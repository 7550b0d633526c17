//! Favours providers whose calls succeed.

use beamline_extension_sdk::{
    Call, Candidate, Extension, Failure, Message, Problem, Score, Scorer, export,
};
use serde::Deserialize;

/// The extension.
#[derive(Debug)]
pub struct MyExtension;

/// What a policy, or the registry record, may set.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How much failures count: 0 not at all, 1 in proportion, 2 more than that.
    pub strength: f64,
    /// The least factor, so that a provider is still seen when it recovers.
    pub floor: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            strength: 1.0,
            floor: 0.05,
        }
    }
}

impl Extension for MyExtension {
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !(0.0..=10.0).contains(&config.strength) {
            problems.push(Problem::new("/strength", "write a number from 0 to 10"));
        }
        if !(0.0..=1.0).contains(&config.floor) {
            problems.push(Problem::new("/floor", "write a number from 0 to 1"));
        }
        problems
    }
}

impl Scorer for MyExtension {
    fn score(
        call: &Call<Config>,
        _message: &Message,
        candidates: &[Candidate],
    ) -> Result<Vec<Score>, Failure> {
        let score = |candidate: &Candidate| {
            // Where nothing was seen yet, nothing speaks against the provider.
            let success = 1.0 - candidate.error_rate.unwrap_or(0.0);
            Score {
                provider_id: candidate.provider_id.clone(),
                factor: success.powf(call.config.strength).max(call.config.floor),
            }
        };
        Ok(candidates.iter().map(score).collect())
    }
}

export!(scorer: MyExtension);

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::{BreakerState, Json, testing};
    use serde_json::Value;

    use super::*;

    fn factor(config: Config, error_rate: Option<f64>) -> f64 {
        let candidate = Candidate {
            provider_id: "a".into(),
            weight: 0.5,
            breaker: BreakerState::Closed,
            latency_ms: None,
            error_rate,
            cost: None,
        };
        let message = testing::message(&Value::Null);
        MyExtension::score(&testing::call(config), &message, &[candidate]).unwrap()[0].factor
    }

    #[test]
    fn failures_lower_the_factor_to_its_floor() {
        assert_eq!(factor(Config::default(), None), 1.0);
        assert_eq!(factor(Config::default(), Some(0.25)), 0.75);
        assert_eq!(factor(Config::default(), Some(1.0)), 0.05);
    }

    #[test]
    fn every_mistake_is_told() {
        let config = Json::from_text(r#"{"strength": -1, "floor": 2}"#);
        let problems = MyExtension::check_config(&config).unwrap_err();
        let paths: Vec<_> = problems
            .iter()
            .map(|problem| problem.path.as_str())
            .collect();
        assert_eq!(paths, ["/strength", "/floor"]);
        assert!(MyExtension::check_config(&Json::empty_object()).is_ok());
    }
}
