//! HEIR, the central policy store, as it is spoken to over HTTP.
//!
//! Refresh, lookups of unknown policies, writes and forwarding all go through one [`HeirClient`], so there is one
//! pool, one breaker and one answer to whether HEIR is up.

mod answer;
mod authorization;
mod availability;
mod backoff;
mod base_url;
mod beside;
mod body;
mod breaker;
mod client;
mod config;
mod connections;
mod error;
mod level;
mod listed;
mod metrics;
mod resolver;
pub(crate) mod tls;
pub mod wire;

pub use answer::{Fetched, Replied};
pub use authorization::TokenError;
pub use availability::{Admission, Availability};
pub use backoff::Backoff;
pub(crate) use backoff::jittered;
pub use base_url::{BaseUrl, InvalidBaseUrl};
pub use body::HeirBody;
pub use breaker::{Breaker, BreakerState, Refused};
pub use client::{ConnectError, HeirClient};
pub use config::{BreakerConfig, HeirConfig, PoolConfig, RetryConfig, TlsConfig};
pub use error::HeirError;
pub use level::Level;
pub use listed::listed;
pub use metrics::{HeirCall, HeirMetrics};
pub(crate) use tls::client_config;
