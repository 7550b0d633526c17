//! What a component answered, checked: JSON that parses, objects where objects are due, finite factors for every candidate.
//! What is not as it should be is no answer. A payload stays text; objects are built only if they hold few values.

use serde_json::{Map, Value};

use super::{
    error::CallError,
    json::{self, MAX_VALUES, Wrong},
    text::{is_code, one_line},
    types::Raw,
    wire::{GuestFailure, NewMessage, Rejection, WireScore, WireVerdict},
};
use crate::decide::{Answer, ExtensionError, MessageText, Replacement, Verdict};

/// Checks an answer. `candidates` are the providers that a scorer was given, in their order.
///
/// # Errors
/// `InvalidResponse` where it keeps the types and not the rules of its world.
pub fn check(raw: Raw, candidates: &[&str]) -> Result<Answer, ExtensionError> {
    match raw {
        Raw::Pre { message, context } => Ok(Answer {
            payload: message.map(new_message).transpose()?.map(Replacement::Message),
            metadata: context.as_deref().map(object).transpose()?.unwrap_or_default(),
            ..Answer::default()
        }),
        Raw::Verdict(WireVerdict::Accept) => Ok(Answer::default()),
        Raw::Verdict(WireVerdict::Reject(Rejection { reason, details })) => Ok(Answer {
            verdict: Verdict::Reject {
                reason: Some(one_line(&reason)).filter(|reason| !reason.is_empty()),
                details: object(&details)?,
            },
            ..Answer::default()
        }),
        Raw::Scores(scores) => Ok(Answer {
            factors: Some(factors(&scores, candidates)?),
            ..Answer::default()
        }),
        Raw::Metadata(metadata) => Ok(Answer {
            metadata: metadata.as_deref().map(object).transpose()?.unwrap_or_default(),
            ..Answer::default()
        }),
    }
}

/// A call that failed, as decisions know failures.
pub(in crate::extensions) fn failure(error: &CallError, timeout_ms: u32, attempts: u32) -> ExtensionError {
    match error {
        CallError::Timeout | CallError::Overrun => ExtensionError::Timeout { timeout_ms, attempts },
        CallError::Trap(report) => ExtensionError::Trap {
            reason: one_line(&report.reason),
        },
        CallError::Fuel => ExtensionError::FuelLimit,
        CallError::Memory(_) | CallError::Table(_) => ExtensionError::MemoryLimit,
        CallError::Output { reason } => ExtensionError::OutputLimit {
            reason: one_line(reason),
        },
        CallError::Failure(GuestFailure { code, message }) if is_code(code) => ExtensionError::Failure {
            code: code.as_str().into(),
            message: one_line(message),
        },
        CallError::Failure(_) => ExtensionError::InvalidResponse,
        CallError::NoInstance { .. } | CallError::PushedOut => ExtensionError::Unavailable,
    }
}

fn object(text: &str) -> Result<Map<String, Value>, ExtensionError> {
    json::object(text).map_err(refused)
}

fn refused(wrong: Wrong) -> ExtensionError {
    match wrong {
        Wrong::Json => ExtensionError::InvalidResponse,
        Wrong::TooMany => ExtensionError::OutputLimit {
            reason: format!("an object of its answer holds more than {MAX_VALUES} values").into(),
        },
    }
}

/// A message of the platform's. Its payload is never built.
fn new_message(new: NewMessage) -> Result<Box<MessageText>, ExtensionError> {
    json::check(&new.payload).map_err(refused)?;
    Ok(Box::new(MessageText {
        metadata: object(&new.metadata)?,
        message_id: new.message_id.into(),
        message_type: new.message_type.into(),
        payload: new.payload.into(),
    }))
}

fn factors(scores: &[WireScore], candidates: &[&str]) -> Result<Vec<f64>, ExtensionError> {
    if scores.len() != candidates.len() {
        return Err(ExtensionError::InvalidResponse);
    }
    // As many scores as candidates, and a score for each candidate: then each has exactly one.
    let factor = |(index, candidate): (usize, &&str)| {
        let in_place = scores.get(index).filter(|score| score.provider_id == **candidate);
        let score = in_place.or_else(|| scores.iter().find(|score| score.provider_id == **candidate))?;
        (score.factor.is_finite() && score.factor >= 0.0).then_some(score.factor)
    };
    let factors: Option<Vec<f64>> = candidates.iter().enumerate().map(factor).collect();
    factors.ok_or(ExtensionError::InvalidResponse)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::extensions::sandbox::text::MAX_TEXT_CHARS;

    fn score(provider_id: &str, factor: f64) -> WireScore {
        WireScore {
            provider_id: provider_id.into(),
            factor,
        }
    }

    #[test]
    fn scores_are_one_for_each_candidate() {
        let check = |scores: &[WireScore]| factors(scores, &["a", "b"]);
        assert_eq!(check(&[score("b", 2.0), score("a", 0.5)]), Ok(vec![0.5, 2.0]));
        for wrong in [
            vec![],
            vec![score("a", 1.0)],
            vec![score("a", 1.0), score("a", 1.0)],
            vec![score("a", 1.0), score("c", 1.0)],
            vec![score("a", 1.0), score("b", f64::NAN)],
            vec![score("a", 1.0), score("b", -0.1)],
            vec![score("a", f64::INFINITY), score("b", 1.0)],
            vec![score("a", 1.0), score("b", 1.0), score("b", 1.0)],
        ] {
            assert_eq!(check(&wrong), Err(ExtensionError::InvalidResponse), "{wrong:?}");
        }
    }

    #[test]
    fn what_is_no_object_is_no_answer() {
        for text in ["", "1", "[]", "null", "{", "{\"a\":}"] {
            let raw = Raw::Metadata(Some(text.into()));
            assert_eq!(check(raw, &[]), Err(ExtensionError::InvalidResponse), "{text}");
        }
        let deep = format!("{}1{}", "{\"a\":".repeat(100_000), "}".repeat(100_000));
        assert_eq!(
            check(Raw::Metadata(Some(deep)), &[]),
            Err(ExtensionError::InvalidResponse)
        );
    }

    #[test]
    fn a_payload_is_kept_as_the_text_that_it_was() {
        let payload = format!("[{}1.50 ]", "0 , ".repeat(200_000));
        let message = |payload: &str, metadata: &str| Raw::Pre {
            message: Some(NewMessage {
                message_id: String::new(),
                message_type: "chat".into(),
                payload: payload.into(),
                metadata: metadata.into(),
            }),
            context: None,
        };
        let Ok(Answer {
            payload: Some(Replacement::Message(kept)),
            ..
        }) = check(message(&payload, r#"{"run_id":"r"}"#), &[])
        else {
            panic!("no message");
        };
        assert_eq!(*kept.payload, *payload);
        for (payload, metadata) in [("[1", "{}"), ("1", "[]"), ("", "{}")] {
            let refused = check(message(payload, metadata), &[]);
            assert_eq!(
                refused,
                Err(ExtensionError::InvalidResponse),
                "{payload} {metadata}"
            );
        }
    }

    #[test]
    fn an_answer_of_very_many_values_is_refused_before_they_are_built() {
        let many = format!("{{\"x\":[{}0]}}", "0,".repeat(150_000));
        let verdict = WireVerdict::Reject(Rejection {
            reason: "r".into(),
            details: many.clone(),
        });
        let context = Raw::Pre {
            message: None,
            context: Some(many.clone()),
        };
        for raw in [Raw::Verdict(verdict), Raw::Metadata(Some(many)), context] {
            let refused = check(raw, &[]).unwrap_err();
            assert_eq!(refused.name(), "extension_output_limit");
        }
    }

    #[test]
    fn texts_are_one_line_and_bounded() {
        let raw = Raw::Verdict(WireVerdict::Reject(Rejection {
            reason: format!("a\nb\u{1b}[31m{}", "x".repeat(10_000)),
            details: "{}".into(),
        }));
        let Ok(Answer {
            verdict: Verdict::Reject {
                reason: Some(reason), ..
            },
            ..
        }) = check(raw, &[])
        else {
            panic!("no verdict");
        };
        assert!(reason.starts_with("a b [31mx"));
        assert_eq!(reason.chars().count(), MAX_TEXT_CHARS);
    }

    #[test]
    fn a_failures_code_is_a_name() {
        let failed = |code: &str| {
            let guest = GuestFailure {
                code: code.into(),
                message: "m".into(),
            };
            failure(&CallError::Failure(guest), 100, 1).name()
        };
        assert_eq!(failed("made_up2"), "extension_failure");
        for code in ["", "2x", "Upper", "a b", "a\"}", &"x".repeat(65)] {
            assert_eq!(failed(code), "invalid_response_format", "{code}");
        }
    }
}
