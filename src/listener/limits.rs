//! Limits on what clients may send and hold open.

use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Limits on everything that comes in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct LimitsConfig {
    /// Bytes of one request body, and of one policy wherever it comes from.
    #[schemars(range(min = 1_024, max = 67_108_864))]
    pub max_body_bytes: usize,
    /// Bytes of request bodies and of lists in memory at one time, of all clients together; one client, which is one
    /// address, may have half of them. No more than a sixteenth of the memory that the control group allows. What goes beyond is
    /// answered 503 `overloaded`. Bodies up to 8 KiB do not count.
    #[schemars(range(min = 1_048_576, max = 17_179_869_184_u64))]
    pub max_buffered_bytes: usize,
    /// Bytes of one request head.
    #[schemars(range(min = 8_192, max = 1_048_576))]
    pub max_header_bytes: usize,
    /// Open connections on each listener. A further client takes the place of the connection that has been idle for
    /// longest; where none is idle, it waits.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_connections: usize,
    /// Requests that wait for HEIR or the disk at one time; further ones are answered 503 `overloaded`. A request counts
    /// from when its body is there until its answer is sent. Lookups from memory never wait and do not count. No
    /// tenant, nor all forwarded ones together, may hold more than are free.
    #[schemars(range(min = 1, max = 1_000_000))]
    pub max_waiting_requests: usize,
    /// Time for a request's head, and again for its body, to arrive. A client that takes nothing of its answer for up to
    /// twice this time is hung up on.
    #[schemars(range(min = 100, max = 600_000))]
    pub read_timeout_ms: u64,
    /// A connection without requests is closed after this time; on the admin listener after 30 s at most.
    #[schemars(range(min = 1_000, max = 86_400_000))]
    pub idle_timeout_ms: u64,
}

impl Default for LimitsConfig {
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            max_buffered_bytes: 64 << 20,
            max_header_bytes: 16 << 10,
            max_connections: 1_024,
            max_waiting_requests: 256,
            read_timeout_ms: 10_000,
            idle_timeout_ms: 300_000,
        }
    }
}

/// What one listener grants its clients.
#[derive(Debug, Clone)]
pub struct ConnectionLimits {
    /// Open connections; a further client takes the place of the idlest, or waits where none is idle.
    pub max_connections: usize,
    /// Bytes of one request's head; a longer one is answered 431.
    pub max_header_bytes: usize,
    /// A request head that takes longer than this (up to twice this) to arrive ends the connection.
    pub header_timeout: Duration,
    /// A connection without requests is closed after this.
    pub idle_timeout: Duration,
}

impl LimitsConfig {
    /// The part of the limits that belongs to a connection.
    pub fn connection(&self) -> ConnectionLimits {
        ConnectionLimits {
            max_connections: self.max_connections,
            max_header_bytes: self.max_header_bytes,
            header_timeout: Duration::from_millis(self.read_timeout_ms),
            idle_timeout: Duration::from_millis(self.idle_timeout_ms),
        }
    }
}
