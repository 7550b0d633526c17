//! Calls for a decision.
//!
//! ```text
//!  Calls ─► Invoker: admit, route, limits ─► Attempt ─┬─ on this thread ──────────────────────► finish ─► Answer
//!                       ▲                             └─ too slow: Detached, on a worker thread ─► finish ─┘
//!                       └──── again after a time-out ◄──────────────────────────────────────────────────┘
//! ```

mod attempt;
mod change;
mod cleaner;
mod detached;
mod finish;
mod input;
mod invoker;
mod run;

pub(in crate::extensions) use self::invoker::Invoker;
pub use self::invoker::{Asking, Calls};
