//! A scorer that prefers providers that are fast, seldom fail and, where asked, cost little. What is
//! not known about a provider counts neither for nor against it, so that new ones are tried.

use beamline_extension_sdk::{Call, Candidate, Extension, Failure, Message, Problem, Score, Scorer, export};
use serde::Deserialize;

/// The extension.
#[derive(Debug)]
pub struct LatencyScorer;

/// How much each observation weighs. An exponent of 0 leaves it out; 1 makes the factor fall as the
/// latency (or the cost) rises; 2 makes it fall with its square.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// For the latency, relative to the best candidate's: 0 to 8.
    pub latency_exponent: f64,
    /// Latencies below this many milliseconds are all as good: more than 0, at most 60 000.
    pub latency_floor_ms: f64,
    /// For the share of calls that succeed: 0 to 8.
    pub error_exponent: f64,
    /// For the cost, relative to the cheapest candidate's: 0 to 8.
    pub cost_exponent: f64,
    /// Costs below this are all as good: more than 0.
    pub cost_floor: f64,
    /// No candidate's factor is less, so that the slow are seen to recover: 0 to 1.
    pub min_factor: f64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            latency_exponent: 1.0,
            latency_floor_ms: 10.0,
            error_exponent: 2.0,
            cost_exponent: 0.0,
            cost_floor: 0.000_001,
            min_factor: 0.05,
        }
    }
}

/// The largest exponent: ten times the latency is then a hundred millionth of the factor.
const MOST: f64 = 8.0;

impl Extension for LatencyScorer {
    type Config = Config;

    fn check(config: &Config) -> Vec<Problem> {
        let mut problems = Vec::new();
        let exponents = [
            ("/latency_exponent", config.latency_exponent),
            ("/error_exponent", config.error_exponent),
            ("/cost_exponent", config.cost_exponent),
        ];
        for (path, exponent) in exponents {
            if !(0.0..=MOST).contains(&exponent) {
                problems.push(Problem::new(path, "must be from 0 to 8"));
            }
        }
        if exponents.iter().all(|(_, exponent)| *exponent == 0.0) {
            problems.push(Problem::new("", "every exponent is 0: all factors would be 1"));
        }
        if !(config.latency_floor_ms > 0.0 && config.latency_floor_ms <= 60_000.0) {
            problems.push(Problem::new(
                "/latency_floor_ms",
                "must be more than 0 and at most 60000",
            ));
        }
        if !(config.cost_floor > 0.0 && config.cost_floor.is_finite()) {
            problems.push(Problem::new("/cost_floor", "must be more than 0"));
        }
        if !(0.0..=1.0).contains(&config.min_factor) {
            problems.push(Problem::new("/min_factor", "must be from 0 to 1"));
        }
        problems
    }
}

impl Scorer for LatencyScorer {
    fn score(call: &Call<Config>, _: &Message, candidates: &[Candidate]) -> Result<Vec<Score>, Failure> {
        Ok(scores(&call.config, candidates))
    }
}

fn scores(config: &Config, candidates: &[Candidate]) -> Vec<Score> {
    let latency = |candidate: &Candidate| candidate.latency_ms.map(|ms| ms.max(config.latency_floor_ms));
    let cost = |candidate: &Candidate| candidate.cost.map(|cost| cost.max(config.cost_floor));
    let best_latency = least(candidates, latency);
    let best_cost = least(candidates, cost);
    candidates
        .iter()
        .map(|candidate| {
            let succeeding = candidate.error_rate.map(|rate| 1.0 - rate.clamp(0.0, 1.0));
            let factor = relative(best_latency, latency(candidate), config.latency_exponent)
                * relative(best_cost, cost(candidate), config.cost_exponent)
                * succeeding.map_or(1.0, |share| share.powf(config.error_exponent));
            Score {
                provider_id: candidate.provider_id.clone(),
                factor: factor.clamp(config.min_factor, 1.0),
            }
        })
        .collect()
}

/// The least that is known of a candidate that can be drawn.
fn least(candidates: &[Candidate], of: impl Fn(&Candidate) -> Option<f64>) -> Option<f64> {
    let drawn = candidates.iter().filter(|candidate| candidate.weight > 0.0);
    drawn.filter_map(of).reduce(f64::min)
}

/// From 1 for the best down towards 0; 1 where nothing is known.
fn relative(best: Option<f64>, own: Option<f64>, exponent: f64) -> f64 {
    match (best, own) {
        (Some(best), Some(own)) if own > best => (best / own).powf(exponent),
        _ => 1.0,
    }
}

export!(scorer: LatencyScorer);

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::{BreakerState, Json, testing};
    use serde_json::json;

    use super::*;

    fn candidate(id: &str) -> Candidate {
        Candidate {
            provider_id: id.into(),
            weight: 10.0,
            breaker: BreakerState::Closed,
            latency_ms: None,
            error_rate: None,
            cost: None,
        }
    }

    fn latency(ms: f64) -> Candidate {
        Candidate {
            latency_ms: Some(ms),
            ..candidate("p")
        }
    }

    fn factors(config: Config, candidates: &[Candidate]) -> Vec<f64> {
        let call = testing::call(config);
        let scores = LatencyScorer::score(&call, &testing::message(&json!(null)), candidates).unwrap();
        scores.into_iter().map(|score| score.factor).collect()
    }

    fn paths(config: &str) -> Vec<String> {
        let problems = LatencyScorer::check_config(&Json::from_text(config)).unwrap_err();
        problems.into_iter().map(|problem| problem.path).collect()
    }

    #[test]
    fn each_candidate_has_one_score_in_its_own_name() {
        let candidates = [candidate("a"), candidate("b")];
        let ids: Vec<_> = scores(&Config::default(), &candidates)
            .into_iter()
            .map(|score| score.provider_id)
            .collect();
        assert_eq!(ids, ["a", "b"]);
        assert!(scores(&Config::default(), &[]).is_empty());
    }

    #[test]
    fn twice_the_latency_is_half_the_factor() {
        let candidates = [latency(100.0), latency(200.0), latency(400.0)];
        assert_eq!(factors(Config::default(), &candidates), [1.0, 0.5, 0.25]);
        let square = Config {
            latency_exponent: 2.0,
            ..Config::default()
        };
        assert_eq!(factors(square, &candidates), [1.0, 0.25, 0.0625]);
    }

    #[test]
    fn the_unknown_is_neutral() {
        assert_eq!(
            factors(Config::default(), &[candidate("new"), latency(50.0)]),
            [1.0, 1.0]
        );
        assert_eq!(
            factors(Config::default(), &[candidate("a"), candidate("b")]),
            [1.0, 1.0]
        );
    }

    #[test]
    fn below_the_floor_all_are_as_good() {
        assert_eq!(
            factors(Config::default(), &[latency(0.0), latency(10.0), latency(20.0)]),
            [1.0, 1.0, 0.5]
        );
    }

    #[test]
    fn who_cannot_be_drawn_is_no_measure() {
        let out = Candidate {
            weight: 0.0,
            ..latency(10.0)
        };
        assert_eq!(
            factors(Config::default(), &[out, latency(100.0), latency(200.0)]),
            [1.0, 1.0, 0.5]
        );
    }

    #[test]
    fn failing_lowers_the_factor_down_to_the_least() {
        let failing = |rate| Candidate {
            error_rate: Some(rate),
            ..candidate("p")
        };
        let candidates = [failing(0.0), failing(0.5), failing(1.0)];
        assert_eq!(factors(Config::default(), &candidates), [1.0, 0.25, 0.05]);
        let none = Config {
            min_factor: 0.0,
            ..Config::default()
        };
        assert_eq!(factors(none, &candidates), [1.0, 0.25, 0.0]);
    }

    #[test]
    fn cost_counts_only_where_asked() {
        let costing = |cost| Candidate {
            cost: Some(cost),
            ..candidate("p")
        };
        let candidates = [costing(0.0), costing(0.01), costing(0.04)];
        assert_eq!(factors(Config::default(), &candidates), [1.0, 1.0, 1.0]);
        let config = Config {
            cost_exponent: 1.0,
            cost_floor: 0.01,
            ..Config::default()
        };
        assert_eq!(factors(config, &candidates), [1.0, 1.0, 0.25]);
    }

    #[test]
    fn extremes_stay_finite() {
        let steep = Config {
            latency_exponent: MOST,
            latency_floor_ms: f64::MIN_POSITIVE,
            min_factor: 0.0,
            ..Config::default()
        };
        let found = factors(steep, &[latency(0.0), latency(f64::MAX)]);
        assert!(
            found.iter().all(|factor| (0.0..=1.0).contains(factor)),
            "{found:?}"
        );
    }

    #[test]
    fn the_example_record_has_a_good_configuration() {
        let record: serde_json::Value = serde_json::from_str(include_str!("../extension.json")).unwrap();
        assert_eq!(
            LatencyScorer::check_config(&Json::from(&record["config"])),
            Ok(())
        );
    }

    #[test]
    fn every_mistake_in_a_configuration_is_told() {
        let wrong = r#"{"latency_exponent": -1, "error_exponent": 9, "cost_exponent": 8.1,
            "latency_floor_ms": 0, "cost_floor": 0, "min_factor": 1.5}"#;
        assert_eq!(
            paths(wrong),
            [
                "/latency_exponent",
                "/error_exponent",
                "/cost_exponent",
                "/latency_floor_ms",
                "/cost_floor",
                "/min_factor"
            ]
        );
        assert_eq!(paths(r#"{"latency_exponent": 0, "error_exponent": 0}"#), [""]);
        assert_eq!(paths(r#"{"latency": 1}"#), ["/latency"]);
        assert_eq!(LatencyScorer::check_config(&Json::empty_object()), Ok(()));
    }
}
