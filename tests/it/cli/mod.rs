//! The commands, as processes.

mod commands;
mod ext;
mod ext_about;
mod ext_loop;
mod ext_oci;
mod ext_project;
mod ext_replay;
mod policies;
mod policies_real;
mod tutorial;
