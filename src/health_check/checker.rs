//! The checker: its configuration, made ready to use.

use std::sync::Arc;

use http::Uri;

use super::{
    address::{self, InvalidAddress},
    config::HealthChecksConfig,
    metrics::HealthCheckMetrics,
    probe::Prober,
    targets::Rules,
};
use crate::heir::tls::TlsError;

/// Why the checker cannot be built.
#[derive(Debug, thiserror::Error)]
pub enum CheckerError {
    /// An address in `health_checks.endpoints` is not valid.
    #[error("health_checks.endpoints: the address of `{provider}` {source}")]
    Endpoint {
        /// The provider it is for.
        provider: String,
        /// What is wrong with it.
        source: InvalidAddress,
    },
    /// A host in `health_checks.allow` is not valid.
    #[error("health_checks.allow: `{host}` {source}")]
    Allow {
        /// The host.
        host: String,
        /// What is wrong with it.
        source: InvalidAddress,
    },
    /// The TLS files cannot be used.
    #[error("health_checks.tls")]
    Tls(#[from] TlsError),
}

/// Checks the health of providers.
#[derive(Debug)]
pub struct HealthChecker {
    pub(super) config: HealthChecksConfig,
    pub(super) rules: Rules,
    pub(super) prober: Arc<Prober>,
    pub(super) metrics: Arc<HealthCheckMetrics>,
}

impl HealthChecker {
    /// Checks the addresses and reads the TLS files. No connection is made yet.
    ///
    /// # Errors
    /// When an address or a host is not valid, or the TLS files cannot be used.
    pub fn connect(
        config: HealthChecksConfig,
        metrics: Arc<HealthCheckMetrics>,
    ) -> Result<Self, CheckerError> {
        let mut rules = Rules::default();
        for (provider, text) in &config.endpoints {
            let uri = address::parse(text).map_err(|source| CheckerError::Endpoint {
                provider: provider.clone(),
                source,
            })?;
            rules.endpoints.insert(provider.clone(), uri);
        }
        for host in &config.allow {
            rules.allowed.add(host).map_err(|source| CheckerError::Allow {
                host: host.clone(),
                source,
            })?;
        }
        let over_tls = |uri: &Uri| uri.scheme() == Some(&http::uri::Scheme::HTTPS);
        let uses_tls =
            config.enabled && (!rules.allowed.is_empty() || rules.endpoints.values().any(over_tls));
        let prober = Arc::new(Prober::new(&config, uses_tls)?);
        Ok(Self {
            config,
            rules,
            prober,
            metrics,
        })
    }
}
