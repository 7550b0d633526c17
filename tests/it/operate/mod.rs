//! What an operator sees and does.

mod admin;
mod metrics;
mod openapi;
mod process;
mod routes;
