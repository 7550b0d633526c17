//! Extensions: WebAssembly components that take part in decisions. Each call gets an instance of its own, with limits on
//! time, memory and output, and nothing of the system but what it was granted.
//!
//! ```text
//!  supply  the modules that the records name, in the background
//!    │
//!  host, invoke ─► recording  real calls, for their author ─► testing  cases of an extension ────────────┐
//!       ─► invoke    calls for a decision ─► registry  what can be called ─► component_cache  modules ──┤
//!                                                                         ─► health                     │
//!          component_cache, health ─► scheduling  where a call runs                                     │
//!                                  ─► manifest    registry records, read ─► sandbox  one call ◄─────────┘
//! ```
//!
//! Arrows point to the right only. `config`, `metrics` and `revision` use nothing else in this room.

mod at_start;
mod budget;
mod component_cache;
mod config;
mod digest;
mod health;
mod host;
mod invoke;
mod looks;
mod manifest;
mod metrics;
pub mod oci;
mod recording;
mod registry;
mod revision;
mod sandbox;
mod scheduling;
pub mod signing;
mod supply;
pub mod testing;
mod web;

pub use self::{
    component_cache::{
        Built, COMMAND, CompileError, Compiler, ComponentCache, NotBuilt, compile_here, keep_artifact,
        read_module_file,
    },
    config::{ExtensionBreakerConfig, ExtensionsConfig},
    digest::ModuleDigest,
    health::{
        BlockedTenant, BreakerReport, ExtensionHealth, HealthReport, LastTrap, TargetHealth, VersionHealth,
    },
    host::ExtensionHost,
    invoke::{Asking, Calls},
    looks::{Asked, Look, Looks},
    manifest::{
        ExtensionRecords, Instance, Manifest, ManifestKind, ManifestLimits, Module, ModuleSource, Release,
        read_records,
    },
    metrics::ExtensionMetrics,
    recording::{InvalidRecording, RecordConfig, Recording, read_recordings},
    registry::{Checking, Extension, Judged, ManifestSource, Refusal, Registry, Target, call_limits, merged},
    sandbox::{
        BreakerState, Budget, CallEnv, CallError, CallLimits, CallOutput, CallRecord, CandidateRecord,
        Capability, ConfigProblem, CrashReport, DecisionRecord, EngineError, Engines, Fast, GuestFailure,
        GuestOutput, Interface, Kind, LogLevel, MessageRecord, NewMessage, PreOutput, Prepared, Profile, Raw,
        Rejection, Share, SpentStore, Time, Timer, Unusable, WireScore, WireVerdict, Work, check_answer,
        check_import,
    },
    supply::Supply,
};
