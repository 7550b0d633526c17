//! A recorded call: as it is handed to the thread that writes it, and as it is read from a file.

use std::time::Duration;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    decide::redact,
    extensions::{
        sandbox::{
            CallEnv, CallError, CallOutput, CallRecord, DecisionRecord, Kind, MessageRecord, Raw, Work,
        },
        testing::{
            self, CaseCandidate, CaseDecision, CaseError, CaseIds, Expect, ExtensionCase, MessageValue,
            outcome,
        },
    },
};

/// The form of a line.
const FORM: u64 = 1;

/// A call that was made, with its own copy of everything.
#[derive(Debug)]
pub(in crate::extensions) struct RecordedCall {
    extension: Box<str>,
    kind: Kind,
    sha256: String,
    /// The time of day of the call, which is its clock.
    pub(super) at_ms: u64,
    seed: u64,
    remaining_ms: u32,
    ids: [Box<str>; 4],
    context: Box<str>,
    config: Box<str>,
    /// Message id, type, payload and metadata; of a post-processor none.
    message: Option<[Box<str>; 4]>,
    candidates: Vec<CaseCandidate>,
    decision: CaseDecision,
    result: Result<Raw, CallError>,
    took: Duration,
    memory_bytes: usize,
}

impl RecordedCall {
    /// Copies a call that is over.
    pub(in crate::extensions) fn of(
        of: (&str, String),
        record: CallRecord<'_>,
        work: Work<'_>,
        env: CallEnv,
        output: &CallOutput<Raw>,
    ) -> Self {
        Self {
            result: output.result.clone(),
            took: output.took,
            memory_bytes: output.memory_bytes,
            ..Self::copied(of, record, work, env)
        }
    }

    /// A copy of a call's input, as if it had timed out.
    fn copied(
        (extension, sha256): (&str, String),
        record: CallRecord<'_>,
        work: Work<'_>,
        env: CallEnv,
    ) -> Self {
        let texts = |message: MessageRecord<'_>| {
            [
                message.message_id,
                message.message_type,
                message.payload,
                message.metadata,
            ]
            .map(Box::from)
        };
        let mut candidates = Vec::new();
        let mut decision = CaseDecision::default();
        let message = match work {
            Work::Pre(message) | Work::Validator(message) => Some(texts(message)),
            Work::Scorer(message, of) => {
                candidates.extend(of.iter().map(|candidate| CaseCandidate {
                    provider_id: candidate.provider_id.to_owned(),
                    weight: candidate.weight,
                    breaker: candidate.breaker,
                    latency_ms: candidate.latency_ms,
                    error_rate: candidate.error_rate,
                    cost: candidate.cost,
                }));
                Some(texts(message))
            }
            Work::Post(DecisionRecord {
                provider_id,
                reason,
                priority,
            }) => {
                decision = CaseDecision {
                    provider_id: provider_id.to_owned(),
                    reason: reason.to_owned(),
                    priority,
                };
                None
            }
        };
        Self {
            extension: extension.into(),
            kind: work.kind(),
            sha256,
            at_ms: env.now_ms,
            seed: env.seed,
            remaining_ms: record.remaining_ms,
            ids: [
                record.tenant_id,
                record.policy_id,
                record.trace_id,
                record.request_id,
            ]
            .map(Box::from),
            context: record.context.into(),
            config: record.config.into(),
            message,
            candidates,
            decision,
            result: Err(CallError::Timeout),
            took: Duration::ZERO,
            memory_bytes: 0,
        }
    }

    /// As a line of a file, without secrets and personal data as far as their keys tell them.
    pub(super) fn into_line(self) -> String {
        let [tenant, policy_id, trace_id, request_id] = self.ids.map(String::from);
        let message = self
            .message
            .map(|[message_id, message_type, payload, metadata]| MessageValue {
                message_id: message_id.into(),
                message_type: message_type.into(),
                payload: serde_json::from_str(&payload).unwrap_or_default(),
                metadata: object(&metadata),
            });
        let mut context = object(&self.context);
        context.insert("tenant_id".to_owned(), tenant.as_str().into());
        let case = ExtensionCase {
            name: format!("{} for {tenant}, request {request_id:?}", self.extension),
            line: 0,
            message: message.unwrap_or_default(),
            context,
            config: object(&self.config),
            candidates: self.candidates,
            decision: self.decision,
            now_ms: self.at_ms,
            seed: self.seed,
            ids: CaseIds {
                policy_id,
                trace_id,
                request_id,
            },
            // The answer takes its place.
            expect: Expect::Error(CaseError::Trap),
        };
        let expect = match outcome(self.result, &case) {
            Ok(outcome) => outcome.to_expect(),
            // There was no instance for it: nothing can be expected of that.
            Err(_) => json!("accept"),
        };
        let case = case.to_json(self.kind, expect);
        let shown = redact(&case);
        let is_redacted = shown != case;
        json!({
            "recording": FORM,
            "extension": self.extension,
            "kind": self.kind,
            "sha256": self.sha256,
            "redacted": is_redacted,
            "remaining_ms": self.remaining_ms,
            "took_us": self.took.as_secs_f64() * 1e6,
            "memory_bytes": self.memory_bytes,
            "case": shown,
        })
        .to_string()
    }
}

fn object(text: &str) -> Map<String, Value> {
    serde_json::from_str(text).unwrap_or_default()
}

/// A call as a file has it.
#[derive(Debug, Clone)]
pub struct Recording {
    /// The id of the extension.
    pub extension: String,
    /// What it is.
    pub kind: Kind,
    /// The digest of the component that answered.
    pub sha256: String,
    /// Whether something of the call was left out, so that it may be answered otherwise now.
    pub redacted: bool,
    /// The time that it was told to have, in milliseconds.
    pub remaining_ms: u32,
    /// How long it took.
    pub took: Duration,
    /// The most linear memory that it had.
    pub memory_bytes: usize,
    /// The call, and its answer as what is expected.
    pub case: ExtensionCase,
    /// The same, as a file of cases has it.
    pub case_json: Value,
}

/// Why a line is no recorded call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{line}: it is no recorded call: {reason}")]
pub struct InvalidRecording {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub reason: String,
}

#[derive(Deserialize)]
struct Line {
    recording: u64,
    extension: String,
    kind: Kind,
    sha256: String,
    redacted: bool,
    remaining_ms: u32,
    took_us: f64,
    memory_bytes: usize,
    case: Value,
}

/// Reads a file of recorded calls. A last line that was cut off is left out.
///
/// # Errors
/// The first line that is none.
pub fn read_recordings(text: &str) -> Result<Vec<Recording>, InvalidRecording> {
    let mut recordings = Vec::new();
    for (index, line) in text
        .lines()
        .enumerate()
        .filter(|(_, line)| !line.trim().is_empty())
    {
        match read(line) {
            Ok(recording) => recordings.push(recording),
            Err(_) if index + 1 == text.lines().count() && !text.ends_with('\n') => {}
            Err(reason) => {
                return Err(InvalidRecording {
                    line: index + 1,
                    reason,
                });
            }
        }
    }
    Ok(recordings)
}

fn read(line: &str) -> Result<Recording, String> {
    let line: Line = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if line.recording != FORM {
        return Err(format!(
            "it has the form {}, and this version reads {FORM}",
            line.recording
        ));
    }
    let file = json!({"extension": line.kind, "cases": [line.case]});
    let read = testing::read_value(file).map_err(|mistakes| {
        let mistakes: Vec<&str> = mistakes.iter().map(|mistake| mistake.message.as_str()).collect();
        mistakes.join("; ")
    })?;
    let case = read.cases.into_iter().next().ok_or("it has no case")?;
    Ok(Recording {
        extension: line.extension,
        kind: line.kind,
        sha256: line.sha256,
        redacted: line.redacted,
        remaining_ms: line.remaining_ms,
        took: Duration::try_from_secs_f64(line.took_us / 1e6).unwrap_or_default(),
        memory_bytes: line.memory_bytes,
        case,
        case_json: line.case,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        decide::REDACTED,
        extensions::sandbox::{
            BreakerState, CandidateRecord, CrashReport, GuestFailure, NewMessage, Rejection, WireScore,
            WireVerdict,
        },
    };

    const MESSAGE: MessageRecord<'static> = MessageRecord {
        message_id: "m-1",
        message_type: "chat",
        payload: r#"{"text": "Zürich \ud83d\ude00 \u007f\u0085\u2028\ufeff\uffff \u0001", "n": 18446744073709551615, "f": 0.1}"#,
        metadata: r#"{"run_id": "r"}"#,
    };

    fn call(work: Work<'_>, context: &str, result: Result<Raw, CallError>) -> RecordedCall {
        let record = CallRecord {
            tenant_id: "acme",
            policy_id: "chat",
            trace_id: "t-1",
            request_id: "r-1",
            context,
            config: r#"{"words": ["falcon"]}"#,
            remaining_ms: 80,
        };
        let env = CallEnv {
            now_ms: 1_735_689_600_000,
            seed: u64::MAX,
        };
        RecordedCall {
            result,
            took: Duration::from_micros(1_500),
            memory_bytes: 4_096,
            ..RecordedCall::copied(("guard", "ab".to_owned()), record, work, env)
        }
    }

    #[test]
    fn what_is_recorded_is_read_as_a_case_with_its_answer() {
        let candidate = CandidateRecord {
            provider_id: "a",
            weight: 2.0,
            breaker: BreakerState::HalfOpen,
            latency_ms: Some(5.5),
            error_rate: None,
            cost: None,
        };
        let decision = DecisionRecord {
            provider_id: "a",
            reason: "sticky",
            priority: 100,
        };
        let crash = CrashReport {
            reason: "unreachable".to_owned(),
            frames: Vec::new(),
            offsets: Vec::new(),
        };
        let failure = GuestFailure {
            code: "odd".to_owned(),
            message: "m".to_owned(),
        };
        let rejection = Rejection {
            reason: "no".to_owned(),
            details: r#"{"count": 1}"#.to_owned(),
        };
        let message = NewMessage {
            message_id: "m-2".to_owned(),
            message_type: "chat".to_owned(),
            payload: "[1]".to_owned(),
            metadata: "{}".to_owned(),
        };
        let scores = vec![WireScore {
            provider_id: "a".to_owned(),
            factor: 0.5,
        }];
        let candidates = [candidate];
        let accept = || Ok(Raw::Verdict(WireVerdict::Accept));
        for (work, result, expect) in [
            (Work::Validator(MESSAGE), accept(), json!("accept")),
            (
                Work::Validator(MESSAGE),
                Ok(Raw::Verdict(WireVerdict::Reject(rejection))),
                json!({"reject": {"reason": "no", "details": {"count": 1}}}),
            ),
            (
                Work::Pre(MESSAGE),
                Ok(Raw::Pre {
                    message: Some(message),
                    context: None,
                }),
                json!({"message": {"message_id": "m-2", "message_type": "chat", "payload": [1], "metadata": {}}}),
            ),
            (
                Work::Scorer(MESSAGE, &candidates),
                Ok(Raw::Scores(scores)),
                json!({"scores": {"a": 0.5}}),
            ),
            (
                Work::Post(decision),
                Ok(Raw::Metadata(Some(r#"{"a": 1}"#.to_owned()))),
                json!({"metadata": {"a": 1}}),
            ),
            (Work::Post(decision), Ok(Raw::Metadata(None)), json!("unchanged")),
            (
                Work::Validator(MESSAGE),
                Err(CallError::Failure(failure)),
                json!({"failure": "odd"}),
            ),
            (
                Work::Validator(MESSAGE),
                Err(CallError::Trap(crash)),
                json!({"error": "trap"}),
            ),
            (
                Work::Validator(MESSAGE),
                Err(CallError::Timeout),
                json!({"error": "timeout"}),
            ),
        ] {
            let line = call(work, r#"{"tenant_id": "acme", "tier": "gold"}"#, result).into_line();
            assert!(!line.contains('\n'));
            let read =
                read_recordings(&format!("{line}\n")).unwrap_or_else(|error| panic!("{error}: {line}"));
            let [recording] = &read[..] else { panic!("{line}") };
            assert_eq!(recording.case_json["expect"], expect, "{line}");
            assert_eq!(recording.kind, work.kind());
            assert_eq!((recording.redacted, recording.remaining_ms), (false, 80));
            assert_eq!(
                (recording.took, recording.memory_bytes),
                (Duration::from_micros(1_500), 4_096)
            );
            let case = &recording.case;
            assert_eq!((case.now_ms, case.seed), (1_735_689_600_000, u64::MAX));
            assert_eq!(
                (case.ids.policy_id.as_str(), case.ids.request_id.as_str()),
                ("chat", "r-1")
            );
            assert_eq!(case.config["words"], json!(["falcon"]));
            assert_eq!(case.context["tier"], "gold");
            if work.kind() != Kind::Post {
                let sent: Value = serde_json::from_str(MESSAGE.payload).unwrap();
                assert_eq!(case.message.payload, sent);
            }
        }
    }

    #[test]
    fn whatever_a_sidecar_takes_is_read_again() {
        let deep = format!("{}1{}", "[".repeat(100), "]".repeat(100));
        let many = format!("[{}1]", "1,".repeat(300_000));
        for payload in [
            format!(r#"{{"a": {deep}}}"#),
            format!(r#"{{"a": {many}}}"#),
            format!(r#"{{"{}": 1}}"#, "k".repeat(5_000)),
        ] {
            let message = MessageRecord {
                payload: &payload,
                ..MESSAGE
            };
            let accept = Ok(Raw::Verdict(WireVerdict::Accept));
            let line = call(Work::Validator(message), "{}", accept).into_line();
            let read = read_recordings(&format!("{line}\n")).unwrap();
            let sent: Value = serde_json::from_str(&payload).unwrap();
            assert_eq!(read[0].case.message.payload, sent);
        }
    }

    #[test]
    fn what_the_log_leaves_out_is_not_recorded() {
        let message = MessageRecord {
            payload: r#"{"email": "a@b.c", "text": "Bearer abc"}"#,
            ..MESSAGE
        };
        let accept = Ok(Raw::Verdict(WireVerdict::Accept));
        let line = call(Work::Validator(message), r#"{"user": {"phone": 1}}"#, accept).into_line();
        for secret in ["a@b.c", "Bearer abc", "\"phone\":1"] {
            assert!(!line.contains(secret), "{line}");
        }
        let read = read_recordings(&line).unwrap();
        assert!(read[0].redacted);
        assert_eq!(read[0].case.message.payload["email"], REDACTED);
    }

    #[test]
    fn what_is_no_recording_is_told_and_a_last_line_may_be_cut_off() {
        let accept = Ok(Raw::Verdict(WireVerdict::Accept));
        let line = call(Work::Validator(MESSAGE), "{}", accept).into_line();
        let half = &line[..line.len() / 2];
        assert_eq!(read_recordings(&format!("{line}\n{half}")).unwrap().len(), 1);
        assert_eq!(
            read_recordings(&format!("{line}\n{half}\n{line}\n"))
                .unwrap_err()
                .line,
            2
        );
        let other = line.replace("\"recording\":1", "\"recording\":2");
        assert!(
            read_recordings(&format!("{other}\n"))
                .unwrap_err()
                .reason
                .contains("form 2")
        );
        assert!(read_recordings("").unwrap().is_empty());
    }
}
