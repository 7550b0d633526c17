//! Compares what was expected with what came.

use std::collections::BTreeSet;

use serde_json::{Map, Value, json};

use super::{
    case::{Expect, ExtensionCase, MessageValue},
    run::Outcome,
};
use crate::policy::json_path;

/// A place where the two differ.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Difference {
    /// Such as `reject.details.found[0].count`; empty where something else altogether came.
    pub path: String,
    /// What the case expects there.
    pub wanted: Value,
    /// What came.
    pub got: Value,
}

/// Everything that differs; nothing if the case holds.
pub fn compare(case: &ExtensionCase, outcome: &Outcome) -> Vec<Difference> {
    let mut differences = Vec::new();
    match (&case.expect, outcome) {
        (Expect::Accept, Outcome::Accept) => {}
        (
            Expect::Reject { reason, details },
            Outcome::Reject {
                reason: got,
                details: got_details,
            },
        ) => {
            if let Some(reason) = reason {
                exactly("reject.reason", &json!(reason), &json!(got), &mut differences);
            }
            if let Some(details) = details {
                exactly("reject.details", details, got_details, &mut differences);
            }
        }
        (Expect::Failure(code), Outcome::Failure(failure)) => {
            exactly("failure", &json!(code), &json!(failure.code), &mut differences);
        }
        (Expect::ConfigProblems(places), Outcome::ConfigProblems(problems)) => {
            let wanted: BTreeSet<&str> = places.iter().map(String::as_str).collect();
            let got: BTreeSet<&str> = problems.iter().map(|problem| problem.path.as_str()).collect();
            if wanted != got {
                differences.push(Difference {
                    path: "config_problems".to_owned(),
                    wanted: json!(wanted),
                    got: json!(got),
                });
            }
        }
        (
            Expect::Changed { message, context },
            Outcome::Changed {
                message: got,
                context: got_context,
            },
        ) => {
            let sent = as_object(&case.message);
            let mut wanted = sent.clone();
            wanted.extend(message.clone());
            let got = got.as_ref().map_or(sent, as_object);
            exactly(
                "message",
                &Value::Object(wanted),
                &Value::Object(got),
                &mut differences,
            );
            exactly("context", &json!(context), &json!(got_context), &mut differences);
        }
        (Expect::Scores(wanted), Outcome::Scores(got)) => {
            let providers: BTreeSet<&String> = wanted.keys().chain(got.keys()).collect();
            for provider in providers {
                let (wanted, got) = (wanted.get(provider), got.get(provider));
                let is_close =
                    matches!((wanted, got), (Some(wanted), Some(got)) if (wanted - got).abs() <= 1e-6);
                if !is_close {
                    differences.push(Difference {
                        path: format!("scores.{provider}"),
                        wanted: json!(wanted),
                        got: json!(got),
                    });
                }
            }
        }
        (Expect::Metadata(wanted), Outcome::Metadata(got)) => {
            exactly("metadata", &json!(wanted), &json!(got), &mut differences);
        }
        (Expect::Error(error), Outcome::Error(failed)) if *error == failed.error => {}
        (expect, outcome) => differences.push(Difference {
            path: String::new(),
            wanted: expect.to_json(),
            got: outcome.to_json(),
        }),
    }
    differences
}

fn as_object(message: &MessageValue) -> Map<String, Value> {
    let MessageValue {
        message_id,
        message_type,
        payload,
        metadata,
    } = message;
    let entries = [
        ("message_id", json!(message_id)),
        ("message_type", json!(message_type)),
        ("payload", payload.clone()),
        ("metadata", json!(metadata)),
    ];
    entries
        .into_iter()
        .map(|(key, value)| (key.to_owned(), value))
        .collect()
}

/// Adds what differs, down to the innermost place.
fn exactly(path: &str, wanted: &Value, got: &Value, differences: &mut Vec<Difference>) {
    match (wanted, got) {
        (Value::Object(wanted), Value::Object(got)) => {
            let keys: BTreeSet<&String> = wanted.keys().chain(got.keys()).collect();
            for key in keys {
                match (wanted.get(key), got.get(key)) {
                    (Some(wanted), Some(got)) => {
                        exactly(&json_path::member(path, key), wanted, got, differences)
                    }
                    (wanted, got) => differences.push(Difference {
                        path: json_path::member(path, key),
                        wanted: wanted.cloned().unwrap_or_else(|| json!("(no such key)")),
                        got: got.cloned().unwrap_or_else(|| json!("(no such key)")),
                    }),
                }
            }
        }
        (Value::Array(wanted), Value::Array(got)) if wanted.len() == got.len() => {
            for (index, (wanted, got)) in wanted.iter().zip(got).enumerate() {
                exactly(&format!("{path}[{index}]"), wanted, got, differences);
            }
        }
        (Value::Number(wanted), Value::Number(got)) if is_close(wanted, got) => {}
        _ if wanted == got => {}
        _ => differences.push(Difference {
            path: path.to_owned(),
            wanted: wanted.clone(),
            got: got.clone(),
        }),
    }
}

/// Numbers are written by people: 0.7 is 0.7 however it was computed.
fn is_close(a: &serde_json::Number, b: &serde_json::Number) -> bool {
    match (a.as_f64(), b.as_f64()) {
        _ if a == b => true,
        // Whole numbers are counted, not computed.
        _ if !a.is_f64() && !b.is_f64() => false,
        (Some(a), Some(b)) => (a - b).abs() <= 1e-9 * a.abs().max(1.0),
        _ => false,
    }
}

impl Expect {
    /// As a case writes it.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Accept => json!("accept"),
            Self::Reject { reason, details } => {
                let mut rejection = Map::new();
                rejection.extend(reason.as_ref().map(|reason| ("reason".to_owned(), json!(reason))));
                rejection.extend(
                    details
                        .as_ref()
                        .map(|details| ("details".to_owned(), details.clone())),
                );
                json!({ "reject": rejection })
            }
            Self::Failure(code) => json!({ "failure": code }),
            Self::ConfigProblems(places) => json!({ "config_problems": places }),
            Self::Changed { message, context } => changed(json!(message), context),
            Self::Scores(scores) => json!({ "scores": scores }),
            Self::Metadata(metadata) => json!({ "metadata": metadata }),
            Self::Error(error) => json!({"error": error.as_str()}),
        }
    }
}

impl Outcome {
    /// As a case writes it, with messages where there are any.
    pub fn to_json(&self) -> Value {
        match self {
            Self::Accept => json!("accept"),
            Self::Reject { reason, details } => json!({"reject": {"reason": reason, "details": details}}),
            Self::Failure(failure) => json!({"failure": failure.code, "message": failure.message}),
            Self::ConfigProblems(problems) => {
                let problems: Map<String, Value> = problems
                    .iter()
                    .map(|problem| (problem.path.clone(), json!(problem.message)))
                    .collect();
                json!({ "config_problems": problems })
            }
            Self::Changed { message, context } => changed(
                message
                    .as_ref()
                    .map_or(json!({}), |message| Value::Object(as_object(message))),
                context,
            ),
            Self::Scores(scores) => json!({ "scores": scores }),
            Self::Metadata(metadata) => json!({ "metadata": metadata }),
            Self::Error(failed) => json!({"error": failed.error.as_str(), "reason": failed.reason}),
        }
    }
}

fn changed(message: Value, context: &Map<String, Value>) -> Value {
    let mut changed = Map::new();
    if message != json!({}) {
        changed.insert("message".to_owned(), message);
    }
    if !context.is_empty() {
        changed.insert("context".to_owned(), json!(context));
    }
    if changed.is_empty() {
        json!("unchanged")
    } else {
        Value::Object(changed)
    }
}
