//! Extensions that misbehave, for the tests of the host: one component for each world, which does what
//! `config.do` says. `README.md` lists the deeds; those that a world cannot do fail with
//! `not_in_this_world`, so that no test passes by mistake.

mod acts;
mod config;
mod worlds;

pub use config::{Config, Deed};

/// The extension, in every world.
#[derive(Debug)]
pub struct Misbehaving;
