//! The sidecar of a Beamline Router: it stands in front of HEIR, the central policy store, and answers policy
//! lookups and requests for decisions from memory, whether HEIR is up, slow, gone, restored from a backup, or talking
//! nonsense.
//!
//! ```text
//!  Router ─ listener ─► route ─┬─ lookup ─► snapshot ───────────────────────┐
//!                              ├─ decide ─► snapshot + decide ◄► memory ─────┤
//!                              ├─ write ──► HEIR, or the journal ─► snapshot ┼─► respond ─► Router
//!                              └─ (rest) ─► forward ─► HEIR ─────────────────┘
//!  refresh (HEIR | disk | directory) ─► policy ─► snapshot            admin reads all of it
//!  health_check ─► memory ◄─► remember (the disk)      cases tries policies on decide, for their authors
//!  app puts it together from a config; priority says which threads stand back for which; store is a HEIR of our own
//! ```
//!
//! Arrows point one way: `policy` and `respond` use nothing of ours, `decide` and `snapshot` use `policy`, `heir` uses both,
//! `refresh` and `write` keep the snapshot like HEIR, `route` answers from it, `app` knows everybody.

pub mod admin;
pub mod app;
pub mod cli;
pub mod clock;
pub mod config;
pub mod decide;
pub mod extensions;
pub mod failure;
pub mod forward;
pub mod health_check;
pub mod heir;
pub mod intake;
pub mod listener;
pub mod policy;
pub mod readiness;
pub mod refresh;
pub mod respond;
pub mod route;
pub mod snapshot;
pub mod store;
pub mod telemetry;
pub mod testing;
mod thread_priority;
pub mod write;
pub mod yaml;
