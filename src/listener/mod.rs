//! Listening sockets, and the connections that are accepted on them.
//!
//! ```text
//!  bind (address ─► socket) ─► accept (bounded, counted) ─► http1 (keep-alive, time-outs) ─► handler
//! ```

mod accept;
mod activity;
mod address;
mod bind;
mod date;
mod discard;
mod handler;
mod http1;
mod inherited;
mod limits;
mod linger;
mod metrics;
mod open;
mod rarely;
mod stop;
mod stream;
mod tls;

pub use address::{Address, InvalidAddress, Peer};
pub use bind::{Bound, TlsSettings};
pub use discard::{discard, drain};
pub use handler::{Handler, Reply};
pub use http1::serve;
pub use inherited::InheritedSockets;
pub use limits::{ConnectionLimits, LimitsConfig};
pub use metrics::{ListenerMetrics, ListenersMetrics};
pub use stop::Stop;
pub use tls::{Tls, TlsFiles, tls_settings};
