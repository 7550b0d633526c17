//! The decision: which provider a request goes to, and why. Pure but for the memory it is given: time and chance are
//! arguments, nothing here knows HTTP, sockets or a clock.

pub mod memory;
mod moment;

pub use moment::Moment;
