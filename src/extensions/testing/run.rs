//! Runs one case.

use std::{collections::BTreeMap, time::Duration};

use serde_json::{Map, Value};

use super::case::{CaseCandidate, CaseError, Expect, ExtensionCase, MessageValue};
use crate::extensions::sandbox::{
    CallEnv, CallError, CallLimits, CallOutput, CallRecord, CandidateRecord, ConfigProblem, DecisionRecord,
    GuestFailure, GuestOutput, Kind, MessageRecord, Prepared, Raw, Time, WireScore, WireVerdict, Work,
    is_code,
};

/// The result of a call, checked as the host checks answers.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// A validator accepted the message.
    Accept,
    /// A validator rejected the message.
    Reject {
        /// Why.
        reason: String,
        /// A JSON object.
        details: Value,
    },
    /// The extension reported a failure.
    Failure(GuestFailure),
    /// The extension refused its configuration.
    ConfigProblems(Vec<ConfigProblem>),
    /// The result of a pre-processor.
    Changed {
        /// The message in place of the one it was given.
        message: Option<MessageValue>,
        /// What it adds to the context.
        context: Map<String, Value>,
    },
    /// The factors of a scorer, by provider.
    Scores(BTreeMap<String, f64>),
    /// What a post-processor adds to the decision.
    Metadata(Map<String, Value>),
    /// The host ended the call, or its answer is not valid.
    Error(FailedCall),
}

/// A call that the host ended, or whose answer cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FailedCall {
    /// How it failed.
    pub error: CaseError,
    /// Why, for people.
    pub reason: String,
    /// Where it crashed, the innermost function first.
    pub frames: Vec<String>,
    /// Where each of them stands in the bytes of the component.
    pub offsets: Vec<Option<usize>>,
}

impl FailedCall {
    fn of(error: CaseError, reason: String) -> Self {
        Self {
            error,
            reason,
            frames: Vec::new(),
            offsets: Vec::new(),
        }
    }
}

/// A case that was run.
#[derive(Debug)]
pub struct CaseRun {
    /// The result.
    pub outcome: Outcome,
    /// What was logged and counted, by the check of its configuration too.
    pub output: GuestOutput,
    /// How long the call took, without the check.
    pub took: Duration,
    /// The most linear memory that the call had.
    pub memory_bytes: usize,
    /// What it computed, where its record gives it fuel.
    pub fuel: Option<u64>,
}

/// The settings of the calls of a run.
#[derive(Debug, Clone, Copy)]
pub struct CallSettings {
    /// The limits of each call.
    pub limits: CallLimits,
    /// How long a call may take.
    pub deadline: Duration,
    /// The remaining time that calls are told, in milliseconds.
    pub remaining_ms: u32,
}

impl CallSettings {
    const fn time(&self) -> Time {
        Time::of(self.deadline)
    }

    /// Lets the extension check the configuration, as the host does before any call, and makes the call.
    ///
    /// # Errors
    /// When there was no room for an instance, which is not the extension's doing.
    pub fn run(&self, prepared: &Prepared, case: &ExtensionCase) -> Result<CaseRun, String> {
        let checked = Given::of(case).check_config(prepared, self);
        let wants_check = matches!(case.expect, Expect::ConfigProblems(_));
        let checked_outcome = match checked.result {
            Ok(problems) if problems.is_empty() && !wants_check => None,
            Ok(problems) => Some(Outcome::ConfigProblems(problems)),
            Err(error) => Some(failed(error)?),
        };
        if let Some(outcome) = checked_outcome {
            return Ok(CaseRun {
                outcome,
                output: checked.output,
                took: checked.took,
                memory_bytes: checked.memory_bytes,
                fuel: checked.fuel,
            });
        }
        let mut run = self.call(prepared, case)?;
        let mut output = checked.output;
        output.lines.append(&mut run.output.lines);
        output.counters.append(&mut run.output.counters);
        output.dropped = output.dropped.saturating_add(run.output.dropped);
        run.output = output;
        Ok(run)
    }

    fn call(&self, prepared: &Prepared, case: &ExtensionCase) -> Result<CaseRun, String> {
        let call = Given::of(case).call(prepared, self);
        Ok(CaseRun {
            outcome: outcome(call.result, case)?,
            output: call.output,
            took: call.took,
            memory_bytes: call.memory_bytes,
            fuel: call.fuel,
        })
    }
}

/// What a case gives to the extension, written out once for any number of calls.
#[derive(Debug)]
pub struct Given<'a> {
    case: &'a ExtensionCase,
    context: String,
    config: String,
    payload: String,
    metadata: String,
    candidates: Vec<CandidateRecord<'a>>,
}

impl<'a> Given<'a> {
    /// The input of a case.
    pub fn of(case: &'a ExtensionCase) -> Self {
        let text = |object: &Map<String, Value>| Value::Object(object.clone()).to_string();
        let candidate = |candidate: &'a CaseCandidate| CandidateRecord {
            provider_id: &candidate.provider_id,
            weight: candidate.weight,
            breaker: candidate.breaker,
            latency_ms: candidate.latency_ms,
            error_rate: candidate.error_rate,
            cost: candidate.cost,
        };
        Self {
            case,
            context: text(&case.context),
            config: text(&case.config),
            payload: case.message.payload.to_string(),
            metadata: text(&case.message.metadata),
            candidates: case.candidates.iter().map(candidate).collect(),
        }
    }

    /// Calls the extension. The configuration is not checked, nor is the answer.
    pub fn call(&self, prepared: &Prepared, settings: &CallSettings) -> CallOutput<Raw> {
        let case = self.case;
        let tenant_id = case.context.get("tenant_id").and_then(Value::as_str);
        let record = CallRecord {
            tenant_id: tenant_id.unwrap_or("tenant"),
            policy_id: &case.ids.policy_id,
            trace_id: &case.ids.trace_id,
            request_id: &case.ids.request_id,
            context: &self.context,
            config: &self.config,
            remaining_ms: settings.remaining_ms,
        };
        let message = MessageRecord {
            message_id: &case.message.message_id,
            message_type: &case.message.message_type,
            payload: &self.payload,
            metadata: &self.metadata,
        };
        let work = match prepared.kind() {
            Kind::Pre => Work::Pre(message),
            Kind::Validator => Work::Validator(message),
            Kind::Scorer => Work::Scorer(message, &self.candidates),
            Kind::Post => Work::Post(DecisionRecord {
                provider_id: &case.decision.provider_id,
                reason: &case.decision.reason,
                priority: case.decision.priority,
            }),
        };
        let env = CallEnv {
            now_ms: case.now_ms,
            seed: case.seed,
        };
        prepared.call(record, work, settings.limits, settings.time(), env)
    }

    /// Lets the extension check the configuration.
    pub fn check_config(
        &self,
        prepared: &Prepared,
        settings: &CallSettings,
    ) -> CallOutput<Vec<ConfigProblem>> {
        prepared.check_config(&self.config, settings.limits, settings.time())
    }
}

/// What came of a call, checked.
///
/// # Errors
/// When there was no room for an instance, which is not the extension's doing.
pub(in crate::extensions) fn outcome(
    result: Result<Raw, CallError>,
    case: &ExtensionCase,
) -> Result<Outcome, String> {
    match result {
        Ok(raw) => Ok(checked(raw, case)
            .unwrap_or_else(|reason| Outcome::Error(FailedCall::of(CaseError::Output, reason)))),
        Err(error) => failed(error),
    }
}

fn failed(error: CallError) -> Result<Outcome, String> {
    let reason = error.to_string();
    let (error, report) = match error {
        CallError::Failure(failure) if is_code(&failure.code) => return Ok(Outcome::Failure(failure)),
        CallError::Failure(failure) => {
            let reason = format!(
                "the code of its failure, {:?}, is no name: at most 64 of a to z, 0 to 9 and _, a letter first",
                failure.code
            );
            return Ok(Outcome::Error(FailedCall::of(CaseError::Output, reason)));
        }
        CallError::NoInstance { .. } | CallError::PushedOut => return Err(reason),
        CallError::Timeout | CallError::Overrun => (CaseError::Timeout, None),
        CallError::Fuel => (CaseError::Fuel, None),
        CallError::Trap(report) => (CaseError::Trap, Some(report)),
        CallError::Memory(report) => (CaseError::Memory, Some(report)),
        CallError::Table(report) => (CaseError::Table, Some(report)),
        CallError::Output { .. } => (CaseError::Output, None),
    };
    let (frames, offsets) = report
        .map(|report| (report.frames, report.offsets))
        .unwrap_or_default();
    Ok(Outcome::Error(FailedCall {
        error,
        reason,
        frames,
        offsets,
    }))
}

/// Checks that an answer is what its world promises.
pub(super) fn checked(raw: Raw, case: &ExtensionCase) -> Result<Outcome, String> {
    Ok(match raw {
        Raw::Verdict(WireVerdict::Accept) => Outcome::Accept,
        Raw::Verdict(WireVerdict::Reject(rejection)) => Outcome::Reject {
            reason: rejection.reason,
            details: Value::Object(object("the details of its rejection", &rejection.details)?),
        },
        Raw::Pre { message, context } => Outcome::Changed {
            message: match message {
                Some(message) => Some(MessageValue {
                    message_id: message.message_id,
                    message_type: message.message_type,
                    payload: json("the payload of its message", &message.payload)?,
                    metadata: object("the metadata of its message", &message.metadata)?,
                }),
                None => None,
            },
            context: match context {
                Some(context) => object("its context", &context)?,
                None => Map::new(),
            },
        },
        Raw::Scores(scores) => Outcome::Scores(all_scores(scores, case)?),
        Raw::Metadata(Some(metadata)) => Outcome::Metadata(object("its metadata", &metadata)?),
        Raw::Metadata(None) => Outcome::Metadata(Map::new()),
    })
}

fn json(what: &str, text: &str) -> Result<Value, String> {
    serde_json::from_str(text).map_err(|error| format!("{what} is not JSON: {error}"))
}

fn object(what: &str, text: &str) -> Result<Map<String, Value>, String> {
    match json(what, text)? {
        Value::Object(object) => Ok(object),
        _ => Err(format!("{what} is not a JSON object")),
    }
}

/// One finite factor, 0 or more, for each candidate.
fn all_scores(scores: Vec<WireScore>, case: &ExtensionCase) -> Result<BTreeMap<String, f64>, String> {
    let mut factors = BTreeMap::new();
    for WireScore { provider_id, factor } in scores {
        if !case
            .candidates
            .iter()
            .any(|candidate| candidate.provider_id == provider_id)
        {
            return Err(format!("it scored {provider_id:?}, which is no candidate"));
        }
        if !factor.is_finite() || factor < 0.0 {
            return Err(format!(
                "the factor of {provider_id:?} is {factor}, not a finite number from 0"
            ));
        }
        if factors.insert(provider_id.clone(), factor).is_some() {
            return Err(format!("it scored {provider_id:?} twice"));
        }
    }
    match case
        .candidates
        .iter()
        .find(|candidate| !factors.contains_key(&candidate.provider_id))
    {
        Some(missing) => Err(format!("it gave {:?} no score", missing.provider_id)),
        None => Ok(factors),
    }
}
