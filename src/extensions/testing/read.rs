//! Reads cases. Reading goes on after a mistake, so that all of them are reported at once.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{
    case::{CaseCandidate, CaseDecision, CaseError, CaseFile, CaseIds, Expect, ExtensionCase, MessageValue},
    mistake::Mistake,
    tree::{self, Entries, Node, Reader, Tree, value},
};
use crate::{
    extensions::sandbox::{BreakerState, Kind},
    yaml,
};

const MESSAGE: [&str; 4] = ["message_id", "message_type", "payload", "metadata"];

/// Reads a file of cases.
///
/// # Errors
/// Every mistake in it, in the order of the file.
pub fn read(text: &str) -> Result<CaseFile, Vec<Mistake>> {
    part(text, file)
}

/// Reads cases that are a value already, such as recorded calls: what is no text has no places, and no limits of YAML.
///
/// # Errors
/// Every mistake in it.
pub fn read_value(file_of_cases: Value) -> Result<CaseFile, Vec<Mistake>> {
    whole(&tree::without_places(file_of_cases), file)
}

/// Reads a message, as a case has one.
///
/// # Errors
/// Every mistake in it.
pub fn read_message(text: &str) -> Result<MessageValue, Vec<Mistake>> {
    part(text, |reader, node| Some(message(reader, node)))
}

/// Reads an object, such as a configuration or a context. `what` names it.
///
/// # Errors
/// What it is instead.
pub fn read_object(what: &str, text: &str) -> Result<Map<String, Value>, Vec<Mistake>> {
    part(text, |reader, node| Some(reader.map(what, node)))
}

/// Reads what a scorer chooses from, as a case has it.
///
/// # Errors
/// Every mistake in it.
pub fn read_candidates(text: &str) -> Result<Vec<CaseCandidate>, Vec<Mistake>> {
    part(text, |reader, node| Some(candidates(reader, node)))
}

/// Reads the decision that a post-processor is given, as a case has it.
///
/// # Errors
/// Every mistake in it.
pub fn read_decision(text: &str) -> Result<CaseDecision, Vec<Mistake>> {
    part(text, |reader, node| Some(decision(reader, node)))
}

fn part<T>(text: &str, read: impl FnOnce(&mut Reader, &Node) -> Option<T>) -> Result<T, Vec<Mistake>> {
    let root = yaml::read(text).or_else(|error| {
        // YAML has limits that a call need not keep, such as the length of a key; what is JSON is read without them.
        serde_json::from_str(text).map(tree::without_places).map_err(|_| {
            let (line, column) = error.location().map_or((0, 0), |at| (at.line(), at.column()));
            vec![Mistake {
                line,
                column,
                message: error.without_snippet().to_string(),
            }]
        })
    })?;
    whole(&root, read)
}

fn whole<T>(root: &Node, read: impl FnOnce(&mut Reader, &Node) -> Option<T>) -> Result<T, Vec<Mistake>> {
    let mut reader = Reader::default();
    match read(&mut reader, root) {
        Some(part) if reader.mistakes.is_empty() => Ok(part),
        _ => {
            reader.mistakes.sort();
            Err(reader.mistakes)
        }
    }
}

fn file(reader: &mut Reader, root: &Node) -> Option<CaseFile> {
    let entries = reader.object("a file of cases", root, &["extension", "cases"])?;
    let Some(node) = entries.get("extension") else {
        reader.mistake(root, "say what `extension` it is: pre, validator, scorer or post");
        return None;
    };
    let name = reader.text("extension", node);
    let Some(kind) = Kind::ALL.into_iter().find(|kind| kind.as_str() == name) else {
        reader.mistake(
            node,
            format!("there is no extension of kind {name:?}: pre, validator, scorer or post"),
        );
        return None;
    };
    let items = match entries.get("cases") {
        Some(node) => reader.list("cases", node),
        None => &[],
    };
    if items.is_empty() {
        reader.mistake(
            root,
            "there are no cases: a test of nothing holds whatever the extension does",
        );
    }
    let cases = items.iter().filter_map(|node| case(reader, kind, node)).collect();
    Some(CaseFile { kind, cases })
}

fn case(reader: &mut Reader, kind: Kind, node: &Node) -> Option<ExtensionCase> {
    const KEYS: [&str; 12] = [
        "name",
        "message",
        "context",
        "config",
        "candidates",
        "decision",
        "now_ms",
        "seed",
        "policy_id",
        "trace_id",
        "request_id",
        "expect",
    ];
    let entries = reader.object("a case", node, &KEYS)?;
    let name = match entries.get("name") {
        Some(node) => reader.text("name", node),
        None => {
            reader.mistake(node, "give the case a `name`: a sentence that says what it shows");
            String::new()
        }
    };
    for (key, of) in [("candidates", Kind::Scorer), ("decision", Kind::Post)] {
        if let Some(node) = entries.get(key)
            && kind != of
        {
            reader.mistake(
                node,
                format!(
                    "only a {} is given `{key}`, and this is a {}",
                    of.as_str(),
                    kind.as_str()
                ),
            );
        }
    }
    if let Some(node) = entries.get("message")
        && kind == Kind::Post
    {
        reader.mistake(node, "a post is given the decision, not the message");
    }
    let expect = match entries.get("expect") {
        Some(node) => expect(reader, kind, node),
        None => {
            reader.mistake(node, "say what to `expect`");
            None
        }
    };
    let candidates = match entries.get("candidates") {
        Some(node) => candidates(reader, node),
        None => {
            if kind == Kind::Scorer && !matches!(expect, Some(Expect::ConfigProblems(_))) {
                reader.mistake(node, "give the scorer `candidates`");
            }
            Vec::new()
        }
    };
    let map = |reader: &mut Reader, key: &str| {
        entries
            .get(key)
            .map(|node| reader.map(key, node))
            .unwrap_or_default()
    };
    let (context, config) = (map(reader, "context"), map(reader, "config"));
    let text = |reader: &mut Reader, key: &str, otherwise: String| {
        entries.get(key).map_or(otherwise, |node| reader.text(key, node))
    };
    let CaseIds {
        policy_id,
        trace_id,
        request_id,
    } = CaseIds::default();
    let ids = CaseIds {
        policy_id: text(reader, "policy_id", policy_id),
        trace_id: text(reader, "trace_id", trace_id),
        request_id: text(reader, "request_id", request_id),
    };
    let whole = |reader: &mut Reader, key: &str, otherwise| {
        entries.get(key).map_or(otherwise, |node| reader.whole(key, node))
    };
    Some(ExtensionCase {
        name,
        line: node.referenced.line(),
        message: entries
            .get("message")
            .map(|node| message(reader, node))
            .unwrap_or_default(),
        context,
        config,
        candidates,
        decision: entries
            .get("decision")
            .map(|node| decision(reader, node))
            .unwrap_or_default(),
        now_ms: whole(reader, "now_ms", 0),
        seed: whole(reader, "seed", 1),
        ids,
        expect: expect?,
    })
}

fn message(reader: &mut Reader, node: &Node) -> MessageValue {
    let mut message = MessageValue::default();
    if let Some(entries) = reader.object("a message", node, &MESSAGE) {
        if let Some(node) = entries.get("message_id") {
            message.message_id = reader.text("message_id", node);
        }
        if let Some(node) = entries.get("message_type") {
            message.message_type = reader.text("message_type", node);
        }
        if let Some(node) = entries.get("payload") {
            message.payload = value(node);
        }
        if let Some(node) = entries.get("metadata") {
            message.metadata = reader.map("metadata", node);
        }
    }
    message
}

fn candidates(reader: &mut Reader, node: &Node) -> Vec<CaseCandidate> {
    const KEYS: [&str; 6] = [
        "provider_id",
        "weight",
        "breaker",
        "latency_ms",
        "error_rate",
        "cost",
    ];
    let mut candidates: Vec<CaseCandidate> = Vec::new();
    for node in reader.list("candidates", node) {
        let Some(entries) = reader.object("a candidate", node, &KEYS) else {
            continue;
        };
        let provider_id = provider(reader, node, entries);
        if candidates.iter().any(|other| other.provider_id == provider_id) {
            reader.mistake(node, format!("there are two candidates {provider_id:?}"));
        }
        let number = |reader: &mut Reader, key: &str, most| {
            entries.get(key).map(|node| reader.number(key, node, most))
        };
        candidates.push(CaseCandidate {
            provider_id,
            weight: number(reader, "weight", f64::MAX).unwrap_or(1.0),
            breaker: entries
                .get("breaker")
                .map_or(BreakerState::Closed, |node| breaker(reader, node)),
            latency_ms: number(reader, "latency_ms", f64::MAX),
            error_rate: number(reader, "error_rate", 1.0),
            cost: number(reader, "cost", f64::MAX),
        });
    }
    candidates
}

fn provider(reader: &mut Reader, node: &Node, entries: Entries<'_>) -> String {
    match entries.get("provider_id") {
        Some(node) => reader.text("provider_id", node),
        None => {
            reader.mistake(node, "name its `provider_id`");
            String::new()
        }
    }
}

fn breaker(reader: &mut Reader, node: &Node) -> BreakerState {
    match reader.text("breaker", node).as_str() {
        "closed" => BreakerState::Closed,
        "half_open" | "half-open" => BreakerState::HalfOpen,
        "open" => BreakerState::Open,
        _ => {
            reader.mistake(node, "breaker is closed, half_open or open");
            BreakerState::Closed
        }
    }
}

fn decision(reader: &mut Reader, node: &Node) -> CaseDecision {
    let mut decision = CaseDecision::default();
    if let Some(entries) = reader.object("a decision", node, &["provider_id", "reason", "priority"]) {
        decision.provider_id = provider(reader, node, entries);
        if let Some(node) = entries.get("reason") {
            decision.reason = reader.text("reason", node);
        }
        if let Some(node) = entries.get("priority") {
            decision.priority = u32::try_from(reader.whole("priority", node)).unwrap_or(u32::MAX);
        }
    }
    decision
}

/// What a case may expect of an extension of this kind.
fn keys(kind: Kind) -> &'static [&'static str] {
    match kind {
        Kind::Pre => &["message", "context", "failure", "config_problems", "error"],
        Kind::Validator => &["reject", "failure", "config_problems", "error"],
        Kind::Scorer => &["scores", "failure", "config_problems", "error"],
        Kind::Post => &["metadata", "failure", "config_problems", "error"],
    }
}

fn expect(reader: &mut Reader, kind: Kind, node: &Node) -> Option<Expect> {
    if let Tree::Scalar(Value::String(word)) = &node.value {
        match (word.as_str(), kind) {
            ("accept", Kind::Validator) => return Some(Expect::Accept),
            ("unchanged", Kind::Pre) => return Some(unchanged()),
            ("unchanged", Kind::Post) => return Some(Expect::Metadata(serde_json::Map::new())),
            ("reject", Kind::Validator) => {
                return Some(Expect::Reject {
                    reason: None,
                    details: None,
                });
            }
            _ => {}
        }
    }
    let entries = match &node.value {
        Tree::Object(_) => reader.object(
            &format!("what a {} is expected to do", kind.as_str()),
            node,
            keys(kind),
        )?,
        _ => {
            let word = match kind {
                Kind::Pre | Kind::Post => "unchanged, or ",
                Kind::Validator => "accept, or ",
                Kind::Scorer => "",
            };
            reader.mistake(node, format!("expect {word}one of {}", keys(kind).join(", ")));
            return None;
        }
    };
    let named: Vec<&str> = keys(kind)
        .iter()
        .copied()
        .filter(|key| entries.get(key).is_some())
        .collect();
    match named.as_slice() {
        [] if kind == Kind::Pre && entries.is_empty() => Some(unchanged()),
        // Where there is a key, its mistake has been reported.
        [] if !entries.is_empty() => None,
        ["message"] | ["context"] | ["message", "context"] => Some(changed(reader, entries)),
        [key] => one(reader, key, entries.get(key)?),
        [] => {
            reader.mistake(node, format!("expect one of {}", keys(kind).join(", ")));
            None
        }
        several => {
            reader.mistake(
                node,
                format!("only one of {} can come of a call", several.join(", ")),
            );
            None
        }
    }
}

fn unchanged() -> Expect {
    Expect::Changed {
        message: serde_json::Map::new(),
        context: serde_json::Map::new(),
    }
}

fn changed(reader: &mut Reader, entries: Entries<'_>) -> Expect {
    let message = entries.get("message").map(|node| {
        // What it says is read once more as a message, for its types.
        let _read = message(reader, node);
        match &node.value {
            Tree::Object(_) => value(node).as_object().cloned().unwrap_or_default(),
            _ => serde_json::Map::new(),
        }
    });
    Expect::Changed {
        message: message.unwrap_or_default(),
        context: entries
            .get("context")
            .map(|node| reader.map("context", node))
            .unwrap_or_default(),
    }
}

fn one(reader: &mut Reader, key: &str, node: &Node) -> Option<Expect> {
    Some(match key {
        "reject" => {
            let entries = reader.object("a rejection", node, &["reason", "details"])?;
            Expect::Reject {
                reason: entries.get("reason").map(|node| reader.text("reason", node)),
                details: entries
                    .get("details")
                    .map(|node| Value::Object(reader.map("details", node))),
            }
        }
        "failure" => Expect::Failure(reader.text("failure", node)),
        "config_problems" => {
            let places = reader.list("config_problems", node);
            if places.is_empty() {
                reader.mistake(node, "name the places, as JSON Pointers: a configuration without problems is one that any other case has");
            }
            Expect::ConfigProblems(places.iter().map(|node| reader.text("a place", node)).collect())
        }
        "scores" => {
            let mut scores = BTreeMap::new();
            match &node.value {
                Tree::Object(entries) => {
                    for (provider, node) in entries {
                        scores.insert(provider.clone(), reader.number("a factor", node, f64::MAX));
                    }
                }
                _ => reader.mistake(node, "scores is an object with a factor for each candidate"),
            }
            Expect::Scores(scores)
        }
        "metadata" if matches!(node.value, Tree::Scalar(Value::Null)) => {
            Expect::Metadata(serde_json::Map::new())
        }
        "metadata" => Expect::Metadata(reader.map("metadata", node)),
        _ => {
            let name = reader.text("error", node);
            match CaseError::ALL.into_iter().find(|error| error.as_str() == name) {
                Some(error) => Expect::Error(error),
                None => {
                    let known = CaseError::ALL.map(CaseError::as_str);
                    reader.mistake(node, format!("error is one of {}", known.join(", ")));
                    return None;
                }
            }
        }
    })
}
