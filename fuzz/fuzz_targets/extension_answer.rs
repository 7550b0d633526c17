//! Any texts and numbers as the answer of an extension, of each kind: what is taken has objects where objects are due, texts
//! on one line and of bounded length, and a factor for each candidate that weights can be multiplied by.

#![no_main]

use beamline_sidecar::{
    decide::Verdict,
    extensions::{NewMessage, PreOutput, Raw, Rejection, WireScore, WireVerdict, check_answer},
};
use libfuzzer_sys::fuzz_target;

const CANDIDATES: [&str; 3] = ["a", "b", "c"];

fuzz_target!(|data: &[u8]| {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let text = String::from_utf8_lossy(rest);
    let mut parts = text.split('\n').map(str::to_owned);
    let mut part = || parts.next();
    let raw = match kind % 5 {
        0 => Raw::Pre {
            message: part().map(|payload| NewMessage {
                message_id: part().unwrap_or_default(),
                message_type: part().unwrap_or_default(),
                payload,
                metadata: part().unwrap_or_default(),
            }),
            context: part(),
        },
        1 => Raw::Verdict(WireVerdict::Accept),
        2 => Raw::Verdict(WireVerdict::Reject(Rejection {
            reason: part().unwrap_or_default(),
            details: part().unwrap_or_default(),
        })),
        3 => Raw::Scores(
            rest.chunks_exact(9)
                .map(|chunk| WireScore {
                    provider_id: String::from_utf8_lossy(&chunk[..1]).into_owned(),
                    factor: f64::from_le_bytes(chunk[1..].try_into().expect("eight bytes")),
                })
                .collect(),
        ),
        _ => Raw::Metadata(part()),
    };
    let Ok(answer) = check_answer(raw, &CANDIDATES) else {
        return;
    };
    if let Verdict::Reject { reason, details } = &answer.verdict {
        if let Some(reason) = reason {
            assert!(!reason.is_empty() && reason.chars().count() <= 512);
            assert!(!reason.contains(char::is_control));
        }
        serde_json::to_string(details).expect("details are JSON");
    }
    if let Some(factors) = &answer.factors {
        assert_eq!(factors.len(), CANDIDATES.len());
        assert!(factors.iter().all(|factor| factor.is_finite() && *factor >= 0.0));
    }
    if let Some(payload) = &answer.payload {
        assert!(payload.is_object());
    }
    serde_json::to_string(&answer.metadata).expect("metadata is JSON");
});
