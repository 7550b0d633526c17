//! Where the webhook's certificate is from: files that another program exchanges, or the injector itself.

mod api_server;
mod authority;
mod rotation;
mod self_managed;

use std::sync::Arc;

use arc_swap::ArcSwap;

use self::rotation::Rotation;
pub use self::{authority::Lifetimes, self_managed::SelfManaged};
use super::{error::InjectorError, metrics::InjectorMetrics, probes::Readiness};
use crate::listener::{Tls, TlsFiles, TlsSettings, tls_settings};

/// Where the certificate is from.
#[derive(Debug, Clone)]
pub enum Certificates {
    /// Files, which are read again when their content changes: of cert-manager, or of the operator.
    Files(TlsFiles),
    /// The injector makes them, keeps them in a Secret, and names their authority in the webhook's configuration.
    SelfManaged(SelfManaged),
}

/// The source of the certificate in use.
#[derive(Debug)]
pub(super) enum Source {
    Files(Arc<Tls>),
    SelfManaged(Box<Rotation>),
}

impl Source {
    pub(super) fn open(
        config: &Certificates,
        metrics: Arc<InjectorMetrics>,
        readiness: Arc<Readiness>,
    ) -> Result<Self, InjectorError> {
        match config {
            Certificates::Files(files) => {
                let tls = Tls::open(files).map_err(InjectorError::Tls)?;
                Ok(Self::Files(Arc::new(tls)))
            }
            Certificates::SelfManaged(config) => {
                let settings = untrusted().map_err(InjectorError::Tls)?;
                let rotation = Rotation::new(config, settings, metrics, readiness);
                let rotation = rotation.map_err(InjectorError::ApiServer)?;
                Ok(Self::SelfManaged(Box::new(rotation)))
            }
        }
    }

    pub(super) fn settings(&self) -> TlsSettings {
        match self {
            Self::Files(tls) => tls.settings(),
            Self::SelfManaged(rotation) => rotation.settings.clone(),
        }
    }

    /// Looks whether there is another one.
    pub(super) async fn look(&self) {
        match self {
            Self::Files(tls) => {
                let tls = tls.clone();
                // A disk that hangs must not hang what is served; the next look waits for this one.
                let _looked = tokio::task::spawn_blocking(move || tls.refresh()).await;
            }
            Self::SelfManaged(rotation) => rotation.look().await,
        }
    }
}

/// A certificate that no client trusts, until there is one: the address is bound before the API server was asked.
fn untrusted() -> Result<TlsSettings, String> {
    let made = rcgen::generate_simple_self_signed(["not-ready.invalid".to_owned()]);
    let made = made.map_err(|error| error.to_string())?;
    let settings = tls_settings(
        made.cert.pem().as_bytes(),
        made.signing_key.serialize_pem().as_bytes(),
    )?;
    Ok(Arc::new(ArcSwap::from_pointee(settings)))
}
