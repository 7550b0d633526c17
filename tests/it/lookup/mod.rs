//! Reading policies through the sidecar.

mod contract;
mod erlang;
mod list;
mod never_waits;
mod tenants;
