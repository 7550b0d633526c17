//! A small process above the sidecar, as nginx and HAProxy have one: it keeps the listening sockets, and starts the sidecar
//! again at once when that dies or hangs. Connections wait in the kernel meanwhile, instead of being refused.
//!
//! ```text
//!  signals ─► supervisor ◄── notices (ready, still alive, keep this socket) ── worker: `run`
//!                 └── starts it, with the sockets that it keeps ──────────────►┘
//! ```
//!
//! It reads no configuration, writes no log and starts no thread: what it does not have cannot fail. Workers speak
//! the protocol of sd_notify(3) with it, so that `run` alone is as good a service of systemd.
//!
//! It is a program of its own, `beamline-sidecar-supervisor`, which [`start`] puts in the place of the process: a program
//! as large as the sidecar takes several times the memory before it has done anything.

mod backoff;
mod notices;
mod program;
mod supervisor;
mod worker;

pub use program::{main, start};
