//! Everything that needs real sockets, in one binary so that it links once.

mod cold_start;
mod erlang;
mod faults;
mod hostile_disk;
mod hostile_history;
mod hostile_outage;
mod hostile_refresh;
mod hostile_stop;
mod lookup;
mod refresh;
mod refresh_races;
mod store;
mod support;
mod tls;
mod writes;
mod writes_replay;
