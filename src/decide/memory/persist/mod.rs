//! What decisions remember, kept over a restart: sticky sessions, breakers, buckets. Optional: without the file the
//! sidecar begins with an empty memory, and so it does with one that is torn, edited or of a later format.
//!
//! One file of lines: a header with the format, one JSON value per entry, and a last line with the checksum of all
//! that precedes it. It is written to another name, synced, and renamed; nothing of it is believed before the checksum
//! is. Estimates, health and the breakers' windows are not kept: they are soon known again.

mod file;
mod line;
mod task;

pub use file::{PersistError, Written, load, save};
pub use line::Loaded;
pub use task::run;

#[cfg(test)]
mod tests;
