//! The admin listener: probes and metrics for every client, the rest for operators. What it answers is in `operate`; here
//! is how that is asked for over HTTP.
//!
//! ```text
//!  listener ─► Admin ─► layers (failures, panics, access, time, methods, body) ─► routes ─► pages ─► operate
//! ```
//!
//! Everything but the open paths needs the token; without a token configured, a client on this machine.

mod access;
mod config;
mod error_body;
mod extract;
mod handler;
mod layers;
mod openapi;
mod pages;
mod parameters;
mod reply;
mod routes;

pub use access::Access;
pub use config::AdminConfig;
pub use handler::Admin;
pub use openapi::document as openapi;
