//! Extensions: WebAssembly components that take part in decisions. Each call gets an instance of its own, with limits on
//! time, memory and what it may say, and nothing of the system but what it was granted.

mod artifact;
mod call;
pub mod cases;
mod compile;
mod component;
mod config;
mod engine;
mod host;
mod module;
mod record;
mod wire;
mod workshop;

pub use call::{CallError, CrashReport};
pub use compile::{COMMAND, CompileError, Compiler, compile_here};
pub use component::{Ambience, CallLimits, Interface, Kind, Prepared, Ran, Raw, Unusable, Work};
pub use config::{ExtensionBreakerConfig, ExtensionsConfig};
pub use engine::{EngineError, Engines, Profile};
pub use host::{Capability, Said, Time};
pub use module::{ModuleDigest, ModuleSource};
pub use record::{Instance, Module, Record, RecordKind, RecordLimits, Release};
pub use wire::*;
pub use workshop::{Built, NotBuilt, Workshop};
