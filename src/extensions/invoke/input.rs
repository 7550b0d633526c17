//! What an extension is called with.

use crate::{
    decide::{Call, Envelope, ExtensionError, Input, ScoredProvider, memory::State},
    extensions::sandbox::{BreakerState, CandidateRecord, DecisionRecord, Kind, MessageRecord, Work},
};

/// The candidates, as a scorer sees them.
pub(super) fn candidates<'a>(input: Input<'a>) -> Vec<CandidateRecord<'a>> {
    let Input::Candidates(_, candidates) = input else {
        return Vec::new();
    };
    let candidate = |candidate: &ScoredProvider<'a>| CandidateRecord {
        provider_id: candidate.provider.as_str(),
        weight: candidate.weight,
        breaker: match candidate.breaker {
            State::Closed => BreakerState::Closed,
            State::HalfOpen => BreakerState::HalfOpen,
            State::Open => BreakerState::Open,
        },
        latency_ms: candidate.latency_ms,
        error_rate: candidate.error_rate,
        cost: candidate.cost,
    };
    candidates.iter().map(candidate).collect()
}

/// The input, as an extension of this kind is given it.
pub(super) fn work<'a>(input: Input<'a>, kind: Kind, candidates: &'a [CandidateRecord<'a>]) -> Work<'a> {
    let message = |message: &'a Envelope<'_>| MessageRecord {
        message_id: message.message_id(),
        message_type: message.message_type(),
        payload: message.payload(),
        metadata: message.metadata(),
    };
    match input {
        Input::Message(of) if kind == Kind::Pre => Work::Pre(message(of)),
        Input::Message(of) => Work::Validator(message(of)),
        Input::Candidates(of, _) => Work::Scorer(message(of), candidates),
        Input::Decision(decision) => {
            let text = |key: &str| {
                decision
                    .get(key)
                    .and_then(serde_json::Value::as_str)
                    .unwrap_or_default()
            };
            let priority = decision.get("priority").and_then(serde_json::Value::as_u64);
            Work::Post(DecisionRecord {
                provider_id: text("provider_id"),
                reason: text("reason"),
                priority: priority
                    .and_then(|priority| u32::try_from(priority).ok())
                    .unwrap_or(0),
            })
        }
    }
}

/// How large the input of a call is, compared with what it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum InputSize {
    Ordinary,
    /// Payload or context have more than half of the bytes that they may have. If such a call needs more memory than it may
    /// have, that is not the extension's crash but an error of this request.
    Large,
}

/// Checks the sizes of payload and context. A size that equals its limit passes.
///
/// # Errors
/// The one that is too large.
pub(super) fn check_sizes(
    call: &Call<'_>,
    max_payload: usize,
    max_metadata: usize,
) -> Result<InputSize, ExtensionError> {
    let payload = match call.input {
        Input::Message(message) | Input::Candidates(message, _) => message.payload().len(),
        Input::Decision(_) => 0,
    };
    if payload > max_payload {
        return Err(ExtensionError::PayloadTooLarge {
            size: payload,
            max: max_payload,
        });
    }
    let metadata = call.around.text().len();
    if metadata > max_metadata {
        return Err(ExtensionError::MetadataTooLarge {
            size: metadata,
            max: max_metadata,
        });
    }
    Ok(if payload > max_payload / 2 || metadata > max_metadata / 2 {
        InputSize::Large
    } else {
        InputSize::Ordinary
    })
}
