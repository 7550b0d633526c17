//! Tests that `make soak` runs for longer than `make test` does.

mod decisions;
mod reloads;
mod truth;
