//! Tests that `make soak` runs for longer than `make test` does.

mod reloads;
mod truth;
