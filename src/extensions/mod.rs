//! Extensions: WebAssembly components that take part in decisions. Each call gets an instance of its own, with limits on
//! time, memory and what it may say, and nothing of the system but what it was granted.

mod call;
mod component;
mod config;
mod engine;
mod host;
mod wire;

pub use call::{CallError, CrashReport};
pub use component::{Ambience, CallLimits, Interface, Kind, Prepared, Ran, Raw, Unusable, Work};
pub use config::{ExtensionBreakerConfig, ExtensionsConfig};
pub use engine::{EngineError, Engines, Profile};
pub use host::{Capability, Said, Time};
pub use wire::*;
