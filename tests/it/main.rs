//! Everything that needs real sockets, in one binary so that it links once.

mod lookup;
mod overtaken;
mod processes;
mod restore;
mod store;
mod support;
mod truth;
