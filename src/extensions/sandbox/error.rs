//! Why a call failed.

use wasmtime::{Trap, WasmBacktrace};

use super::{
    imports::{Ended, Limiter, Refused},
    text::one_line,
    wire::GuestFailure,
};

/// Why a call failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// Its time is over.
    #[error("it did not end in time")]
    Timeout,
    /// Not a failure yet: it is to be begun anew on a worker thread.
    #[error("it takes too long for the fast lane")]
    Overrun,
    /// It computed for longer than its like, and another call needed its place.
    #[error("it took longer than usual, and made room for another call")]
    PushedOut,
    /// It crashed.
    #[error("it crashed: {}", .0.reason)]
    Trap(CrashReport),
    /// It computed more than its record lets it.
    #[error("it used up the fuel that its record gives it")]
    Fuel,
    /// It needs more memory than its limit.
    #[error("it wanted more memory than it may have")]
    Memory(CrashReport),
    /// It needs larger tables than its limit.
    #[error("it wanted larger tables than it may have")]
    Table(CrashReport),
    /// Its answer is larger than its limit, or not of its type.
    #[error("its answer is larger than it may be, or not what its type says: {reason}")]
    Output {
        /// What the engine reports.
        reason: String,
    },
    /// The extension reports it.
    #[error("{}: {}", .0.code, .0.message)]
    Failure(GuestFailure),
    /// Not the extension's doing: all instances are in use, or the memory of all calls.
    #[error("no instance is available: {reason}")]
    NoInstance {
        /// What the engine reports.
        reason: String,
    },
}

/// A crash, and where it happened as far as the component names its functions.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, schemars::JsonSchema)]
pub struct CrashReport {
    /// What the engine reports.
    pub reason: String,
    /// The innermost function first.
    pub frames: Vec<String>,
    /// Where each of them stands in the bytes of the component, for its debug information to be looked up.
    #[serde(skip)]
    pub offsets: Vec<Option<usize>>,
}

impl CallError {
    pub(super) fn of(error: &wasmtime::Error, limiter: &Limiter) -> Self {
        match error.downcast_ref::<Ended>() {
            Some(Ended::Deadline | Ended::Late) => return Self::Timeout,
            Some(Ended::Overrun) => return Self::Overrun,
            Some(Ended::PushedOut) => return Self::PushedOut,
            Some(Ended::NoRoom) => {
                return Self::NoInstance {
                    reason: Ended::NoRoom.to_string(),
                };
            }
            None => {}
        }
        if error.is::<wasmtime::PoolConcurrencyLimitError>() {
            return Self::NoInstance {
                reason: error.to_string(),
            };
        }
        let report = |reason: String| CrashReport {
            reason,
            frames: frames(error, name),
            offsets: frames(error, wasmtime::FrameInfo::module_offset),
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
        if *trap == Trap::OutOfFuel {
            return Self::Fuel;
        }
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
            | Self::PushedOut
            | Self::Fuel
            | Self::Output { .. }
            | Self::Failure(_)
            | Self::NoInstance { .. } => None,
        }
    }
}

fn frames<T>(error: &wasmtime::Error, of: impl Fn(&wasmtime::FrameInfo) -> T) -> Vec<T> {
    let backtrace = error.downcast_ref::<WasmBacktrace>();
    let frames = backtrace.map(WasmBacktrace::frames).unwrap_or_default();
    frames.iter().map(of).collect()
}

fn name(frame: &wasmtime::FrameInfo) -> String {
    match frame.func_name() {
        Some(name) => one_line(name).into(),
        None => format!("function {}", frame.func_index()),
    }
}
