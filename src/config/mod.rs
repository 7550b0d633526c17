//! The configuration: one YAML file, environment variables over it, every mistake reported at once.
//!
//! Each section's struct lives beside the code that it configures; this module puts them together. The JSON Schema
//! that is generated from the structs is what the file is checked against, what names the environment variables,
//! and what the reference in `docs/configuration.md` is written from, so the three cannot disagree.

mod check;
mod env;
mod load;
mod mistake;
mod reference;
mod renamed;
mod sections;

pub use env::{Environment, environment};
pub use load::{Loaded, load, parse};
pub use mistake::{Mistake, Mistakes};
pub(crate) use reference::is_live;
pub use reference::reference;
pub use sections::{Config, MetricsConfig, OneOrMany, RuntimeConfig, ShutdownConfig};
