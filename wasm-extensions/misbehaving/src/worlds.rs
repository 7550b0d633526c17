//! The deeds as each world does them.

use beamline_extension_sdk::{
    Call, Candidate, Decision, Failure, Json, Message, PostProcessor, PreOutput, PreProcessor, Rejection,
    Score, Scorer, Validator, Verdict, clock, random,
};
use serde_json::{Value, json};

use crate::{
    Config, Deed, Misbehaving,
    acts::{act, answer, failure, remember},
};

/// Does the deed as far as all worlds do it alike; `answers` are those this world knows beyond that.
fn begin(config: &Config, answers: &[Deed]) -> Result<(), Failure> {
    use Deed::{
        Allocate, CountMetrics, FloodLog, Loop, LoopInHost, Ok as Behave, Panic, Recurse, Spin, Trap,
    };
    act(config.deed, config);
    let anywhere = [
        Behave,
        Spin,
        Loop,
        LoopInHost,
        Recurse,
        Allocate,
        Trap,
        Panic,
        FloodLog,
        CountMetrics,
    ];
    match failure(config.deed) {
        Some(failure) => Err(failure),
        None if anywhere.contains(&config.deed) || answers.contains(&config.deed) => Ok(()),
        None => Err(Failure::new("not_in_this_world", "this world has no such deed")),
    }
}

/// Deeds of every world that answers with JSON.
const WITH_JSON: [Deed; 10] = [
    Deed::Change,
    Deed::Echo,
    Deed::Remember,
    Deed::Random,
    Deed::Clock,
    Deed::HugeOutput,
    Deed::ManyItems,
    Deed::BadJson,
    Deed::NoObject,
    Deed::Tenant,
];

fn call_seen(call: &Call<Config>) -> Result<Value, Failure> {
    Ok(json!({
        "tenant_id": call.tenant_id,
        "policy_id": call.policy_id,
        "trace_id": call.trace_id,
        "request_id": call.request_id,
        "context": call.context.value()?,
        "note": call.config.note,
        "remaining_ms": call.remaining_ms,
    }))
}

fn message_seen(message: &Message) -> Result<Value, Failure> {
    Ok(json!({
        "message_id": message.message_id,
        "message_type": message.message_type,
        "payload": message.payload.value()?,
        "metadata": message.metadata.value()?,
    }))
}

/// `echo` of a call and a message.
fn echo(call: &Call<Config>, message: &Message) -> Result<Json, Failure> {
    Ok(Json::from(
        &json!({"call": call_seen(call)?, "message": message_seen(message)?}),
    ))
}

impl Validator for Misbehaving {
    fn validate(call: &Call<Config>, message: &Message) -> Result<Verdict, Failure> {
        begin(&call.config, &WITH_JSON)?;
        let details = match call.config.deed {
            Deed::Change => Some(Json::empty_object()),
            Deed::Echo => Some(echo(call, message)?),
            _ => answer(&call.config, message.payload.text()),
        };
        Ok(match details {
            Some(details) => Verdict::Reject(Rejection {
                reason: "as it was told".into(),
                details,
            }),
            None => Verdict::Accept,
        })
    }
}

impl PreProcessor for Misbehaving {
    fn process(call: &Call<Config>, message: Message) -> Result<PreOutput, Failure> {
        begin(&call.config, &WITH_JSON)?;
        Ok(match call.config.deed {
            Deed::Change => PreOutput {
                message: Some(Message {
                    payload: Json::from(&json!({"changed": true})),
                    ..message
                }),
                context: Some(Json::from(&json!({"changed": true}))),
            },
            Deed::Echo => PreOutput {
                message: None,
                context: Some(echo(call, &message)?),
            },
            // The largest part of a message is its payload, so this is where too much is put.
            Deed::HugeOutput | Deed::ManyItems => PreOutput {
                message: answer(&call.config, "").map(|payload| Message { payload, ..message }),
                context: None,
            },
            _ => PreOutput {
                message: None,
                context: answer(&call.config, message.payload.text()),
            },
        })
    }
}

impl PostProcessor for Misbehaving {
    fn process(call: &Call<Config>, decision: &Decision) -> Result<Option<Json>, Failure> {
        begin(&call.config, &WITH_JSON)?;
        Ok(match call.config.deed {
            Deed::Change => Some(Json::from(&json!({"changed": true}))),
            Deed::Echo => Some(Json::from(&json!({
                "call": call_seen(call)?,
                "decision": {
                    "provider_id": decision.provider_id,
                    "reason": decision.reason,
                    "priority": decision.priority,
                },
            }))),
            _ => answer(&call.config, &decision.provider_id),
        })
    }
}

impl Scorer for Misbehaving {
    fn score(
        call: &Call<Config>,
        message: &Message,
        candidates: &[Candidate],
    ) -> Result<Vec<Score>, Failure> {
        let config = &call.config;
        begin(
            config,
            &[
                Deed::Remember,
                Deed::Random,
                Deed::Clock,
                Deed::HugeOutput,
                Deed::NanFactor,
                Deed::InfiniteFactor,
                Deed::NegativeFactor,
                Deed::MissingScore,
                Deed::UnknownScore,
                Deed::DuplicateScore,
                Deed::ZeroScores,
                Deed::Favour,
            ],
        )?;
        let before = match config.deed {
            Deed::Remember => remember(message.payload.text()),
            _ => None,
        };
        let factor = |candidate: &Candidate| match config.deed {
            Deed::NanFactor => f64::NAN,
            Deed::InfiniteFactor => f64::INFINITY,
            Deed::NegativeFactor => -1.0,
            Deed::ZeroScores => 0.0,
            Deed::Favour if candidate.provider_id != config.provider => 0.0,
            Deed::Remember if before.is_some() => 0.0,
            Deed::Random => (random::next_u64() >> 11) as f64,
            Deed::Clock => clock::now_ms() as f64,
            _ => 1.0,
        };
        let mut scores: Vec<_> = candidates
            .iter()
            .map(|candidate| Score {
                provider_id: candidate.provider_id.clone(),
                factor: factor(candidate),
            })
            .collect();
        let one_for = |provider_id: String| Score {
            provider_id,
            factor: 1.0,
        };
        match config.deed {
            Deed::MissingScore => drop(scores.pop()),
            Deed::DuplicateScore => scores.extend(scores.first().cloned()),
            Deed::UnknownScore => scores.push(one_for("nobody".into())),
            Deed::HugeOutput => scores.push(one_for("x".repeat(config.bytes))),
            _ => {}
        }
        Ok(scores)
    }
}

#[cfg(test)]
mod tests {
    use beamline_extension_sdk::{BreakerState, testing};

    use super::*;

    fn config(deed: Deed) -> Config {
        Config {
            deed,
            bytes: 100,
            ..Config::default()
        }
    }

    fn validate(deed: Deed) -> Result<Verdict, Failure> {
        Misbehaving::validate(&testing::call(config(deed)), &testing::message(&json!({"p": 1})))
    }

    fn details(deed: Deed) -> Json {
        match validate(deed).unwrap() {
            Verdict::Reject(rejection) => rejection.details,
            Verdict::Accept => panic!("accepted"),
        }
    }

    fn scores(deed: Deed) -> Vec<(String, f64)> {
        let candidates: Vec<_> = ["a", "b"]
            .map(|id| Candidate {
                provider_id: id.into(),
                weight: 1.0,
                breaker: BreakerState::Closed,
                latency_ms: None,
                error_rate: None,
                cost: None,
            })
            .into();
        let config = Config {
            provider: "b".into(),
            ..config(deed)
        };
        let call = testing::call(config);
        let scores = Misbehaving::score(&call, &testing::message(&json!(null)), &candidates).unwrap();
        scores
            .into_iter()
            .map(|score| (score.provider_id, score.factor))
            .collect()
    }

    fn decision() -> Decision {
        Decision {
            provider_id: "a".into(),
            reason: "weighted".into(),
            priority: 50,
        }
    }

    #[test]
    fn behaves_where_nothing_is_said() {
        assert_eq!(validate(Deed::default()), Ok(Verdict::Accept));
        assert_eq!(scores(Deed::Ok), [("a".into(), 1.0), ("b".into(), 1.0)]);
        let call = testing::call(Config::default());
        let sent = testing::message(&json!(1));
        assert_eq!(
            <Misbehaving as PreProcessor>::process(&call, sent),
            Ok(PreOutput::default())
        );
        assert_eq!(
            <Misbehaving as PostProcessor>::process(&call, &decision()),
            Ok(None)
        );
    }

    #[test]
    fn a_huge_output_has_the_size_asked_for() {
        assert_eq!(details(Deed::HugeOutput).text().len(), 100);
        assert!(details(Deed::HugeOutput).value().is_ok());
        assert_eq!(details(Deed::ManyItems).text().len(), 99);
        assert!(details(Deed::ManyItems).value().is_ok());
        assert_eq!(scores(Deed::HugeOutput)[2].0.len(), 100);
    }

    #[test]
    fn answers_break_the_contract_as_told() {
        assert!(details(Deed::BadJson).value().is_err());
        assert!(details(Deed::NoObject).value().unwrap().is_array());
        assert_eq!(validate(Deed::Failure).unwrap_err().code, "made_up");
        assert!(scores(Deed::NanFactor)[0].1.is_nan());
        assert_eq!(scores(Deed::NegativeFactor)[1].1, -1.0);
        assert_eq!(scores(Deed::MissingScore).len(), 1);
        assert_eq!(scores(Deed::UnknownScore)[2].0, "nobody");
        assert_eq!(scores(Deed::DuplicateScore)[2].0, "a");
        assert_eq!(scores(Deed::Favour), [("a".into(), 0.0), ("b".into(), 1.0)]);
    }

    #[test]
    fn what_a_world_cannot_do_fails() {
        assert_eq!(validate(Deed::NanFactor).unwrap_err().code, "not_in_this_world");
        let call = testing::call(config(Deed::ZeroScores));
        let failed = <Misbehaving as PostProcessor>::process(&call, &decision()).unwrap_err();
        assert_eq!(failed.code, "not_in_this_world");
    }

    #[test]
    fn echoes_what_it_was_given() {
        let mut call = testing::call(config(Deed::Echo));
        call.config.note = json!("kept");
        let echoed = <Misbehaving as PostProcessor>::process(&call, &decision())
            .unwrap()
            .unwrap()
            .value()
            .unwrap();
        assert_eq!(echoed["call"]["note"], "kept");
        assert_eq!(
            echoed["decision"],
            json!({"provider_id": "a", "reason": "weighted", "priority": 50})
        );
        assert_eq!(
            details(Deed::Echo).value().unwrap()["message"]["payload"],
            json!({"p": 1})
        );
    }

    #[test]
    fn a_memory_is_kept_within_an_instance() {
        remember("first");
        assert_eq!(remember("second").as_deref(), Some("first"));
    }

    #[test]
    fn floods_the_host() {
        testing::reset();
        assert_eq!(validate(Deed::FloodLog), Ok(Verdict::Accept));
        let lines = testing::lines();
        assert_eq!((lines.len(), lines[10_000].len()), (10_001, 1 << 20));
        assert_eq!(validate(Deed::CountMetrics), Ok(Verdict::Accept));
        assert_eq!(testing::counted("name_999"), 1);
    }
}
