//! TLS towards the store's clients, from files that may be exchanged while it runs.

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

use crate::listener::TlsSettings;

/// The files of TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The store's certificate, and those between it and an authority, in PEM.
    pub cert: PathBuf,
    /// The certificate's key, in PEM.
    pub key: PathBuf,
    /// The authorities of which a client must have a certificate, in PEM; `None` asks clients for none.
    pub client_ca: Option<PathBuf>,
}

/// The settings that the files make.
#[derive(Debug)]
pub(super) struct Tls {
    files: TlsFiles,
    settings: TlsSettings,
    seen: Mutex<Digests>,
}

/// The content of the files when they were looked at last.
type Digests = Vec<Option<[u8; 32]>>;

impl Tls {
    /// # Errors
    /// What is wrong with the files.
    pub(super) fn open(files: &TlsFiles) -> Result<Self, String> {
        // Before the files are read: a change in between is seen at the next look.
        let seen = digests(files);
        Ok(Self {
            settings: Arc::new(ArcSwap::from_pointee(server_config(files)?)),
            seen: Mutex::new(seen),
            files: files.clone(),
        })
    }

    pub(super) fn settings(&self) -> TlsSettings {
        self.settings.clone()
    }

    /// Reads the files again if their content has changed. Files that cannot be used change nothing.
    pub(super) fn refresh(&self) {
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
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match &files.client_ca {
        None => builder.with_no_client_auth(),
        Some(file) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(file)? {
                roots.add(certificate).map_err(|error| said(file, error))?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
                .build()
                .map_err(|error| said(file, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = fs::read(&files.key).map_err(|error| said(&files.key, error))?;
    let key = PrivateKeyDer::from_pem_slice(&key).map_err(|error| said(&files.key, error))?;
    let mut config = builder
        .with_single_cert(certificates(&files.cert)?, key)
        .map_err(|error| said(&files.cert, error))?;
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = fs::read(file).map_err(|error| said(file, error))?;
    let certificates = CertificateDer::pem_slice_iter(&pem)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| said(file, error))?;
    if certificates.is_empty() {
        return Err(said(file, "it has no certificate"));
    }
    Ok(certificates)
}

fn said(file: &Path, error: impl std::fmt::Display) -> String {
    format!("{}: {error}", file.display())
}
