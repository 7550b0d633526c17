//! Extensions: WebAssembly components that take part in decisions. Each call gets an instance of its own, with limits on
//! time, memory and what it may say, and nothing of the system but what it was granted.

mod answer;
mod artifact;
mod assemble;
mod call;
pub mod cases;
mod clock;
mod compile;
mod component;
mod config;
mod config_check;
mod directory;
mod engine;
mod fetch;
mod host;
mod lane;
mod latency;
mod module;
mod provision;
mod record;
mod registry;
mod run;
mod slow;
mod vitals;
mod wire;
mod workshop;

pub use answer::check as check_answer;
pub use call::{CallError, CrashReport};
pub use compile::{COMMAND, CompileError, Compiler, compile_here};
pub use component::{Ambience, CallLimits, Interface, Kind, Prepared, Ran, Raw, Unusable, Work};
pub use config::{ExtensionBreakerConfig, ExtensionsConfig};
pub use engine::{EngineError, Engines, Profile};
pub use host::{Capability, Fast, Said, Time};
pub use module::{ModuleDigest, ModuleSource};
pub use provision::{ExtensionHost, Wanted};
pub use record::{Instance, Module, Record, RecordKind, RecordLimits, Release};
pub use registry::{Extension, RecordSource, Registry, Target, merged};
pub use run::Calls;
pub use vitals::{BreakerReport, HealthReport, LastTrap, Vitals};
pub use wire::{
    BreakerState, CallRecord, CandidateRecord, ConfigProblem, DecisionRecord, GuestFailure, LogLevel,
    MessageRecord, NewMessage, PreOutput, Rejection, WireScore, WireVerdict,
};
pub use workshop::{Built, NotBuilt, Workshop};
