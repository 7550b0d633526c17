//! Everything that needs real sockets, in one binary so that it links once.

mod killed;
mod lookup;
mod never_waits;
mod overtaken;
mod processes;
mod restore;
mod rolling;
mod store;
mod support;
mod truth;
