//! TLS towards clients, from files that may be exchanged while the process runs.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

use arc_swap::ArcSwap;
use rustls::{
    RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};
use sha2::{Digest, Sha256};

use super::bind::TlsSettings;

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The own certificate, and those between it and an authority, in PEM.
    pub cert: PathBuf,
    /// The certificate's key, in PEM.
    pub key: PathBuf,
    /// The authorities of which a client must have a certificate, in PEM; `None` asks clients for none.
    pub client_ca: Option<PathBuf>,
}

/// The settings that the files make.
#[derive(Debug)]
pub struct Tls {
    files: TlsFiles,
    settings: TlsSettings,
    seen: Mutex<Digests>,
}

/// The content of the files when they were looked at last.
type Digests = Vec<Option<[u8; 32]>>;

impl Tls {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong with the files.
    pub fn open(files: &TlsFiles) -> Result<Self, String> {
        // Before the files are read: a change in between is seen at the next look.
        let seen = digests(files);
        Ok(Self {
            settings: Arc::new(ArcSwap::from_pointee(server_config(files)?)),
            seen: Mutex::new(seen),
            files: files.clone(),
        })
    }

    /// What connections are accepted with, always the newest.
    pub fn settings(&self) -> TlsSettings {
        self.settings.clone()
    }

    /// Reads the files again if their content has changed. Files that cannot be used change nothing.
    pub fn refresh(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = digests(&self.files);
        if *seen == now {
            return;
        }
        *seen = now;
        match server_config(&self.files) {
            Ok(config) => {
                self.settings.store(Arc::new(config));
                tracing::info!("The certificates are others from now on.");
            }
            Err(reason) => {
                tracing::warn!(
                    reason,
                    "The certificates cannot be used; those before stay in use."
                );
            }
        }
    }
}

fn digests(files: &TlsFiles) -> Digests {
    [Some(&files.cert), Some(&files.key), files.client_ca.as_ref()]
        .into_iter()
        .map(|file| Some(Sha256::digest(fs::read(file?).ok()?).into()))
        .collect()
}

fn server_config(files: &TlsFiles) -> Result<ServerConfig, String> {
    let client_roots = match &files.client_ca {
        None => None,
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(&read(file)?).map_err(|error| said(file, error))? {
                roots.add(certificate).map_err(|error| said(file, error))?;
            }
            Some((file, roots))
        }
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match client_roots {
        None => builder.with_no_client_auth(),
        Some((file, roots)) => {
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| said(file, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let chain = certificates(&read(&files.cert)?).map_err(|error| said(&files.cert, error))?;
    let key = PrivateKeyDer::from_pem_slice(&read(&files.key)?).map_err(|error| said(&files.key, error))?;
    let config = builder.with_single_cert(chain, key);
    Ok(with_protocols(config.map_err(|error| said(&files.cert, error))?))
}

/// Settings with this chain of certificates and this key, in PEM, which ask clients for none.
///
/// # Errors
/// What is wrong with them.
pub fn tls_settings(chain: &[u8], key: &[u8]) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
    let config = builder
        .with_no_client_auth()
        .with_single_cert(certificates(chain)?, key);
    Ok(with_protocols(config.map_err(|error| error.to_string())?))
}

fn with_protocols(mut config: ServerConfig) -> ServerConfig {
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    config
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| said(file, error))
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let certificates = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| error.to_string())?;
    if certificates.is_empty() {
        return Err("it has no certificate".to_owned());
    }
    Ok(certificates)
}

fn said(file: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", file.display())
}
