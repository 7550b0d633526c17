//! Writes cases as files of cases have them.

use serde_json::{Map, Value, json};

use super::{
    case::{CaseCandidate, CaseIds, ExtensionCase},
    run::Outcome,
};
use crate::extensions::sandbox::{BreakerState, Kind};

/// JSON as text that is YAML as well: in which some characters that JSON allows may not stand by themselves.
pub fn written(json: &Value) -> String {
    let text = json.to_string();
    let is_plain = |c: char| {
        !matches!(
            c,
            '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}'
        )
    };
    if text.chars().all(is_plain) {
        return text;
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for character in text.chars() {
        if is_plain(character) {
            escaped.push(character);
        } else {
            // They stand in texts only.
            escaped.push_str(&format!("\\u{:04x}", u32::from(character)));
        }
    }
    escaped
}

impl ExtensionCase {
    /// The case of an extension of a kind, with this in the place of what it expects.
    pub fn to_json(&self, kind: Kind, expect: Value) -> Map<String, Value> {
        let CaseIds {
            policy_id,
            trace_id,
            request_id,
        } = &self.ids;
        let mut case = json!({
            "name": self.name,
            "context": self.context,
            "config": self.config,
            "now_ms": self.now_ms,
            "seed": self.seed,
            "policy_id": policy_id,
            "trace_id": trace_id,
            "request_id": request_id,
            "expect": expect,
        });
        if kind == Kind::Post {
            case["decision"] = json!({
                "provider_id": self.decision.provider_id,
                "reason": self.decision.reason,
                "priority": self.decision.priority,
            });
        } else {
            case["message"] = json!({
                "message_id": self.message.message_id,
                "message_type": self.message.message_type,
                "payload": self.message.payload,
                "metadata": self.message.metadata,
            });
        }
        if kind == Kind::Scorer {
            case["candidates"] = self.candidates.iter().map(candidate).collect();
        }
        match case {
            Value::Object(case) => case,
            _ => Map::new(),
        }
    }
}

fn candidate(candidate: &CaseCandidate) -> Value {
    let mut known = json!({
        "provider_id": candidate.provider_id,
        "weight": candidate.weight,
        "breaker": match candidate.breaker {
            BreakerState::Closed => "closed",
            BreakerState::HalfOpen => "half_open",
            BreakerState::Open => "open",
        },
    });
    for (key, value) in [
        ("latency_ms", candidate.latency_ms),
        ("error_rate", candidate.error_rate),
        ("cost", candidate.cost),
    ] {
        if let Some(value) = value {
            known[key] = value.into();
        }
    }
    known
}

impl Outcome {
    /// As a case expects it: without what is for people.
    pub fn to_expect(&self) -> Value {
        match self {
            Self::Failure(failure) => json!({"failure": failure.code}),
            Self::ConfigProblems(problems) => {
                let places: Vec<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
                json!({"config_problems": places})
            }
            Self::Error(failed) => json!({"error": failed.error.as_str()}),
            Self::Metadata(metadata) if metadata.is_empty() => json!("unchanged"),
            _ => self.to_json(),
        }
    }
}
