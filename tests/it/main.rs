//! Everything that needs real sockets, in one binary so that it links once.

mod faults;
mod hostile_refresh;
mod lookup;
mod refresh;
mod store;
mod support;
mod writes;
