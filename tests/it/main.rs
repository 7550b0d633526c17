//! Everything that needs real sockets, in one binary so that it links once.

mod forward;
mod list;
mod lookup;
mod store;
mod support;
