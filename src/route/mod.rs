//! From a request line to what is asked for.

mod path;

pub use path::{InvalidPath, PathId, Target};
