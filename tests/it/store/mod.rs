//! The embedded HEIR over real sockets: on SQLite always, and on Postgres as well when `BEAMLINE_TEST_POSTGRES`
//! holds the URL of a server on which databases may be created (`tests/postgres.sh` starts one).
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]

mod database;
mod documents;
mod extensions;
mod frozen;
mod full_disk;
mod given_up;
mod history;
mod invalid;
mod killed;
mod line;
mod memory;
mod modules;
mod replaced;
mod requests;
mod running;
mod scratch;
mod secured;
mod starts;

pub(crate) use self::{
    line::Line,
    scratch::{Scratch, postgres},
};

const SNAPSHOT: &str = "/api/v1/snapshot";
const P: &str = "/api/v1/policies/acme/chat";

fn policy(id: impl std::fmt::Display) -> String {
    format!("/api/v1/policies/acme/{id}")
}
