//! Everything that needs real sockets, in one binary so that it links once.

mod commands;
mod config;
mod forward;
mod hostile_heir;
mod hostile_requests;
mod hostile_tenants;
mod limits;
mod list;
mod lookup;
mod metrics;
mod ops;
mod ops_process;
mod reload;
mod store;
mod support;
