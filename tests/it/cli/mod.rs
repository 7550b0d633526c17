//! The commands, as processes.

mod commands;
mod ext;
mod policies;
mod policies_real;
mod tutorial;
