//! One call, typed: lowering what it is given, lifting what it answers, and naming what went wrong.

use wasmtime::{
    Store, Trap, WasmBacktrace,
    component::{ComponentExportIndex, Instance, TypedFunc},
};

use super::{
    answer::text,
    component::{Kind, Raw, Work},
    host::{Ended, Host, Limiter, Refused},
    wire::{
        CallRecord, CandidateRecord, ConfigProblem, DecisionRecord, GuestFailure, MessageRecord, PreOutput,
        WireScore, WireVerdict,
    },
};

/// Why a call brought nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    #[error("it did not end in time")]
    Timeout,
    /// Not the extension's fault yet: it is to be begun anew on a thread of its own.
    #[error("it takes too long for the fast lane")]
    Overrun,
    #[error("it crashed: {}", .0.reason)]
    Trap(CrashReport),
    #[error("it wanted more memory than it may have")]
    Memory(CrashReport),
    #[error("it wanted larger tables than it may have")]
    Table(CrashReport),
    #[error("its answer is larger than it may be, or not what its type says: {reason}")]
    Output { reason: String },
    #[error("{}: {}", .0.code, .0.message)]
    Failure(GuestFailure),
    /// Nothing of the extension's: there is no room for another instance.
    #[error("no instance is to be had: {reason}")]
    NoInstance { reason: String },
}

/// A crash, as far as the component says where.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct CrashReport {
    pub reason: String,
    /// The innermost function first.
    pub frames: Vec<String>,
}

impl CallError {
    pub(super) fn of(error: &wasmtime::Error, limiter: &Limiter) -> Self {
        match error.downcast_ref::<Ended>() {
            Some(Ended::Deadline) => return Self::Timeout,
            Some(Ended::Overrun) => return Self::Overrun,
            None => {}
        }
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::NoInstance {
                reason: error.to_string(),
            };
        }
        let report = |reason: String| CrashReport {
            reason,
            frames: frames(error),
        };
        let Some(trap) = error.downcast_ref::<Trap>() else {
            // Lifting an answer, or an argument of a host's function, is what else can fail.
            return match limiter.refused {
                Some(Refused::Memory) => Self::Memory(report(error.root_cause().to_string())),
                Some(Refused::Table) => Self::Table(report(error.root_cause().to_string())),
                None => Self::Output {
                    reason: error.root_cause().to_string(),
                },
            };
        };
        let reason = trap.to_string();
        let reason = reason.strip_prefix("wasm trap: ").unwrap_or(&reason).to_owned();
        match limiter.refused {
            // What a program does that is refused memory is to give up.
            Some(Refused::Memory) => Self::Memory(report(reason)),
            Some(Refused::Table) => Self::Table(report(reason)),
            None => Self::Trap(report(reason)),
        }
    }

    /// A crash counts towards quarantine.
    pub const fn crash(&self) -> Option<&CrashReport> {
        match self {
            Self::Trap(report) | Self::Memory(report) | Self::Table(report) => Some(report),
            Self::Timeout
            | Self::Overrun
            | Self::Output { .. }
            | Self::Failure(_)
            | Self::NoInstance { .. } => None,
        }
    }
}

fn frames(error: &wasmtime::Error) -> Vec<String> {
    let Some(backtrace) = error.downcast_ref::<WasmBacktrace>() else {
        return Vec::new();
    };
    let name = |frame: &wasmtime::FrameInfo| match frame.func_name() {
        Some(name) => text(name).into(),
        None => format!("function {}", frame.func_index()),
    };
    backtrace.frames().iter().map(name).collect()
}

type Processor = TypedFunc<(CallRef, MessageRef), (Result<PreOutput, GuestFailure>,)>;
type Validator = TypedFunc<(CallRef, MessageRef), (Result<WireVerdict, GuestFailure>,)>;
type Scorer = TypedFunc<(CallRef, MessageRef, CandidatesRef), (Result<Vec<WireScore>, GuestFailure>,)>;
type PostProcessor = TypedFunc<(CallRef, DecisionRef), (Result<Option<String>, GuestFailure>,)>;
type Check = TypedFunc<(&'static str,), (Result<(), Vec<ConfigProblem>>,)>;

// Only names of types here: what is lowered lives as long as its call.
type CallRef = CallRecord<'static>;
type MessageRef = MessageRecord<'static>;
type CandidatesRef = &'static [CandidateRecord<'static>];
type DecisionRef = DecisionRecord<'static>;

/// Compares the exported functions with the world.
pub(super) fn check_types(
    store: &mut Store<Host>,
    instance: &Instance,
    kind: Kind,
    work: &ComponentExportIndex,
    check: &ComponentExportIndex,
) -> wasmtime::Result<()> {
    let _: Check = instance.get_typed_func(&mut *store, check)?;
    match kind {
        Kind::Pre => drop::<Processor>(instance.get_typed_func(store, work)?),
        Kind::Validator => drop::<Validator>(instance.get_typed_func(store, work)?),
        Kind::Scorer => drop::<Scorer>(instance.get_typed_func(store, work)?),
        Kind::Post => drop::<PostProcessor>(instance.get_typed_func(store, work)?),
    }
    Ok(())
}

/// An export that answers, or says that it failed.
type Export<Given, Answered> = TypedFunc<Given, (Result<Answered, GuestFailure>,)>;
type Scored<'a> = (CallRecord<'a>, MessageRecord<'a>, &'a [CandidateRecord<'a>]);

pub(super) fn work(
    store: &mut Store<Host>,
    instance: &Instance,
    export: &ComponentExportIndex,
    call: CallRecord<'_>,
    work: Work<'_>,
) -> wasmtime::Result<Result<Raw, CallError>> {
    let answer = match work {
        Work::Pre(message) => {
            let function: Export<(CallRecord<'_>, MessageRecord<'_>), PreOutput> =
                instance.get_typed_func(&mut *store, export)?;
            function.call(store, (call, message))?.0.map(Raw::from)
        }
        Work::Validator(message) => {
            let function: Export<(CallRecord<'_>, MessageRecord<'_>), WireVerdict> =
                instance.get_typed_func(&mut *store, export)?;
            function.call(store, (call, message))?.0.map(Raw::Verdict)
        }
        Work::Scorer(message, candidates) => {
            let function: Export<Scored<'_>, Vec<WireScore>> =
                instance.get_typed_func(&mut *store, export)?;
            function
                .call(store, (call, message, candidates))?
                .0
                .map(Raw::Scores)
        }
        Work::Post(decision) => {
            let function: Export<(CallRecord<'_>, DecisionRecord<'_>), Option<String>> =
                instance.get_typed_func(&mut *store, export)?;
            function.call(store, (call, decision))?.0.map(Raw::Metadata)
        }
    };
    Ok(answer.map_err(CallError::Failure))
}

pub(super) fn check_config(
    store: &mut Store<Host>,
    instance: &Instance,
    export: &ComponentExportIndex,
    config: &str,
) -> wasmtime::Result<Result<Vec<ConfigProblem>, CallError>> {
    let function: TypedFunc<(&str,), (Result<(), Vec<ConfigProblem>>,)> =
        instance.get_typed_func(&mut *store, export)?;
    Ok(Ok(function.call(store, (config,))?.0.err().unwrap_or_default()))
}
