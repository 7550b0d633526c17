//! The sandbox: one call of one component, with limits on time, memory and output, and nothing of the system but what it
//! was granted.
//!
//! [`Engines`] compile-time settings and pools; [`Prepared`] is a linked component; a call of it makes a [`CallOutput`],
//! which `output.rs` checks.

mod budget;
mod call;
mod component;
mod engine;
mod epoch;
mod error;
mod imports;
mod json;
mod output;
mod text;
mod timer;
mod turns;
mod types;
mod wire;

#[cfg(feature = "compiler")]
pub(in crate::extensions) use self::engine::compiling_engine;
pub use self::{
    budget::{Budget, Share},
    component::{CallOutput, Interface, Prepared, SpentStore, Unusable, check_import},
    engine::{EngineError, Engines, Profile},
    error::{CallError, CrashReport},
    output::check as check_answer,
    timer::Timer,
    types::{CallEnv, CallLimits, Capability, Fast, GuestOutput, Kind, Raw, Time, Work},
    wire::{
        BreakerState, CallRecord, CandidateRecord, ConfigProblem, DecisionRecord, GuestFailure, LogLevel,
        MessageRecord, NewMessage, PreOutput, Rejection, WireScore, WireVerdict,
    },
};
pub(in crate::extensions) use self::{
    engine::fingerprint,
    output::failure,
    text::{is_code, one_line},
    timer::processor as processor_time,
    turns::{Go, Turns},
    types::PATIENCE,
};
