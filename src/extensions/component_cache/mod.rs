//! Modules become components: fetched, checked against their digests, compiled in a process of their own, and kept.

mod artifact;
mod cache;
mod compile;
mod fetch;
mod modules;
mod receipt;
mod retry;

pub(in crate::extensions) use self::modules::{Attempt, Modules, Need};
pub use self::{
    cache::{Built, ComponentCache, NotBuilt},
    compile::{COMMAND, CompileError, Compiler, compile_here},
    fetch::keep_artifact,
    modules::read_module_file,
};
