//! Tests that `make soak` runs for longer than `make test` does.

mod decisions;
mod outages;
mod reloads;
mod store;
mod truth;
