//! Why an injector cannot start.

use std::io;

use crate::listener::Address;

/// Why an injector cannot start.
#[derive(Debug, thiserror::Error)]
pub enum InjectorError {
    /// The fragment cannot be used.
    #[error("the fragment cannot be used: {0}")]
    Fragment(String),
    /// The certificate cannot be used.
    #[error("the certificate cannot be used: {0}")]
    Tls(String),
    /// The API server of Kubernetes cannot be asked.
    #[error("the API server cannot be asked: {0}")]
    ApiServer(String),
    /// An address is taken.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address.
        address: Address,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A metric is registered twice, which a test would find.
    #[error(transparent)]
    Metrics(#[from] prometheus::Error),
}
