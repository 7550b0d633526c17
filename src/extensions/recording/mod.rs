//! Real calls, kept in files for their author to replay: what an extension was given, what it answered, and what that cost.
//!
//! ```text
//!  invoke ─► Recorder: is it wanted? ─► bounded queue ─► a thread: redact ─► state_dir/recordings/*.ndjson
//! ```
//!
//! A recorded call is a case of [`testing`](super::testing), with its answer as what is expected: `ext replay` and
//! `ext test --from` read it as such.

mod config;
mod files;
mod recorded;
mod recorder;

pub use self::{
    config::RecordConfig,
    recorded::{InvalidRecording, Recording, read_recordings},
};
pub(in crate::extensions) use self::{recorded::RecordedCall, recorder::Recorder};
