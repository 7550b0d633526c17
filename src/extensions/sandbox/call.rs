//! One call, typed: lowering what it is given, lifting what it answers, and naming what went wrong.

use wasmtime::{
    Store,
    component::{ComponentExportIndex, Instance, TypedFunc},
};

use super::{
    error::CallError,
    imports::CallState,
    types::{Kind, Raw, Work},
    wire::{
        CallRecord, CandidateRecord, ConfigProblem, DecisionRecord, GuestFailure, MessageRecord, PreOutput,
        WireScore, WireVerdict,
    },
};

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
    store: &mut Store<CallState>,
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
    store: &mut Store<CallState>,
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
    store: &mut Store<CallState>,
    instance: &Instance,
    export: &ComponentExportIndex,
    config: &str,
) -> wasmtime::Result<Result<Vec<ConfigProblem>, CallError>> {
    let function: TypedFunc<(&str,), (Result<(), Vec<ConfigProblem>>,)> =
        instance.get_typed_func(&mut *store, export)?;
    let problems = match function.call(store, (config,))?.0 {
        Ok(()) => Vec::new(),
        // A refusal all the same.
        Err(problems) if problems.is_empty() => vec![ConfigProblem {
            path: String::new(),
            message: "the extension refuses it and does not say why".to_owned(),
        }],
        Err(problems) => problems,
    };
    Ok(Ok(problems))
}
