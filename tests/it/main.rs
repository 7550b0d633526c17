//! Everything that needs real sockets, in one binary so that it links once.

mod cold_start;
mod erlang;
mod faults;
mod hostile_disk;
mod hostile_outage;
mod hostile_refresh;
mod lookup;
mod refresh;
mod store;
mod support;
mod tls;
mod writes;
