//! The configuration: one YAML file, environment variables over it, every mistake reported at once.
//!
//! Each section's struct lives beside the code that it configures; this module composes them. The file is checked
//! against the JSON Schema that is generated from the structs; the names of the environment variables and the reference
//! in `docs/configuration.md` are derived from it too, so the three cannot disagree.

mod apart;
mod check;
mod env;
mod load;
mod mistake;
mod reference;
mod renamed;
mod sections;

pub use apart::{COMMAND as READ_CONFIG, answer, load_apart};
pub use env::{Environment, environment};
pub use load::{Loaded, load, parse};
pub use mistake::{Mistake, Mistakes};
pub(crate) use reference::is_live;
pub use reference::reference;
pub use sections::{Config, MetricsConfig, OneOrMany, RuntimeConfig, ShutdownConfig};
