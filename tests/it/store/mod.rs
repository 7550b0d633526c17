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
mod history;
mod killed;
mod requests;
mod running;
mod scratch;

const SNAPSHOT: &str = "/api/v1/snapshot";
const P: &str = "/api/v1/policies/acme/chat";

fn policy(id: impl std::fmt::Display) -> String {
    format!("/api/v1/policies/acme/{id}")
}
