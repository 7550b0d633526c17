//! What the tests need: a client, a HEIR, a sidecar in this process or as a process of its own, and patience.
#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "helpers of tests fail the test that called them"
)]
#![allow(
    clippy::allow_attributes,
    dead_code,
    unused_imports,
    reason = "a helper that one test stops using is not worth a warning in all others"
)]

mod authority;
mod client;
mod disk;
mod faulty;
mod heir;
mod process;
mod processes;
mod proxy;
mod registry;
mod rough;
mod scripted;
mod sidecar;
mod surroundings;

use std::{
    future::Future,
    time::{Duration, Instant},
};

pub(crate) use authority::Authority;
pub(crate) use client::{Answer, Client, converse, raw, until_closed};
pub(crate) use disk::{FrozenDisk, SilentDisk, SmallDisk};
pub(crate) use faulty::{Fault, Faulty, Seen};
pub(crate) use heir::Heir;
pub(crate) use process::{Ended, Process, as_process_1, children, program};
pub(crate) use processes::{Copy, SidecarProcess, StoreProcess};
pub(crate) use proxy::Proxy;
pub(crate) use registry::OciRegistry;
pub(crate) use rough::{chunked, connect_from, read_until, send};
pub(crate) use scripted::{Say, Scripted};
pub(crate) use sidecar::{QUICK, Sidecar};
pub(crate) use surroundings::{ControlGroup, LostPackets, has_mounts_of_its_own, is_in_a_network_of_its_own};

/// Waits until the condition holds; fails the test if it does not within a minute.
pub(crate) async fn eventually<F: Future<Output = bool>>(what: &str, mut condition: impl FnMut() -> F) {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Waits for a condition for so many seconds.
pub(crate) async fn within<F: Future<Output = bool>>(
    seconds: u64,
    what: &str,
    mut condition: impl FnMut() -> F,
) {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    while !condition().await {
        assert!(Instant::now() < deadline, "in vain: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
