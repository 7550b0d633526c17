//! What a call left besides its answer, for people and for machines: log lines, counters, and where it crashed.

use serde_json::{Map, Value, json};

use super::{frames, source_lines::SourceLines};
use crate::extensions::{GuestOutput, testing::Outcome};

/// The lines that a guest logged.
pub(super) fn log_lines(output: &GuestOutput) -> Vec<String> {
    let mut lines: Vec<String> = output
        .lines
        .iter()
        .map(|(level, line)| {
            format!(
                "it logged, as {}: {line}",
                json!(level).as_str().unwrap_or_default()
            )
        })
        .collect();
    if output.dropped > 0 {
        lines.push(format!("it logged {} lines more than are kept", output.dropped));
    }
    lines
}

/// Where it crashed, the innermost function first; empty where it did not. `module` is the component's bytes.
pub(super) fn crash_lines(outcome: &Outcome, module: &[u8]) -> Vec<String> {
    let Outcome::Error(failed) = outcome else {
        return Vec::new();
    };
    let frames = frames::shown(&failed.frames, &failed.offsets, &SourceLines::of(module));
    let mut lines: Vec<String> = frames
        .iter()
        .enumerate()
        .map(|(index, frame)| match index {
            0 => format!("it crashed in {frame}"),
            _ => format!("  called from {frame}"),
        })
        .collect();
    if frames.iter().any(|frame| frame.starts_with("function ")) {
        lines.push("(`ext build --debug` keeps the names of functions, and lines)".to_owned());
    } else if !frames.is_empty() && !frames.iter().any(|frame| frame.contains(" at ")) {
        lines.push("(`ext build --debug` keeps lines)".to_owned());
    }
    lines
}

/// Log, counters and frames as JSON, to be merged with what else is told of the call.
pub(super) fn to_json(output: &GuestOutput, outcome: &Outcome, module: &[u8]) -> Map<String, Value> {
    let log = output
        .lines
        .iter()
        .map(|(level, line)| json!({"level": level, "message": line}));
    let counters: Map<String, Value> = output
        .counters
        .iter()
        .map(|(name, amount)| (name.clone(), json!(amount)))
        .collect();
    let frames = match outcome {
        Outcome::Error(failed) => frames::shown(&failed.frames, &failed.offsets, &SourceLines::of(module)),
        _ => Vec::new(),
    };
    [
        ("log", log.collect::<Value>()),
        ("counters", Value::Object(counters)),
        ("frames", json!(frames)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into_iter()
    .collect()
}
