//! TLS settings towards HEIR, built from files that may be exchanged while the process runs.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use sha2::{Digest, Sha256};

use super::config::TlsConfig;
use crate::plain_file;

/// Why the files make no TLS settings.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error("{path} holds no usable PEM: {reason}")]
    Pem { path: PathBuf, reason: String },
    /// The files do not go together.
    #[error("the TLS settings do not go together")]
    Settings(#[from] rustls::Error),
}

/// Names the content of the files, so that a change is seen whatever the file's time says.
pub(super) fn content_digest(config: &TlsConfig) -> [u8; 32] {
    let mut digest = Sha256::new();
    for file in [&config.ca_file, &config.cert_file, &config.key_file] {
        let content = if file.as_os_str().is_empty() {
            Vec::new()
        } else {
            plain_file::read(file).unwrap_or_default()
        };
        digest.update(content.len().to_be_bytes());
        digest.update(&content);
    }
    digest.finalize().into()
}

/// Reads the files and builds the settings. Where TLS is not used no authority is trusted: reading the system's authorities
/// is most of what a start costs.
pub(crate) fn client_config(config: &TlsConfig, used: bool) -> Result<ClientConfig, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let builder = builder.with_root_certificates(if used {
        roots(&config.ca_file)?
    } else {
        RootCertStore::empty()
    });
    if config.cert_file.as_os_str().is_empty() {
        return Ok(builder.with_no_client_auth());
    }
    let key = PrivateKeyDer::from_pem_slice(&read(&config.key_file)?).map_err(|error| TlsError::Pem {
        path: config.key_file.clone(),
        reason: error.to_string(),
    })?;
    Ok(builder.with_client_auth_cert(certificates(&config.cert_file)?, key)?)
}

fn roots(ca_file: &Path) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    if ca_file.as_os_str().is_empty() {
        for certificate in rustls_native_certs::load_native_certs().certs {
            // The system's store may hold certificates that rustls does not take; the others still count.
            let _skipped = roots.add(certificate);
        }
        return Ok(roots);
    }
    for certificate in certificates(ca_file)? {
        roots.add(certificate)?;
    }
    Ok(roots)
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let pem = |reason: String| TlsError::Pem {
        path: path.to_owned(),
        reason,
    };
    let certificates = CertificateDer::pem_slice_iter(&read(path)?)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| pem(error.to_string()))?;
    if certificates.is_empty() {
        Err(pem("it has no certificate".into()))
    } else {
        Ok(certificates)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    plain_file::read(path).map_err(|source| TlsError::Read {
        path: path.to_owned(),
        source,
    })
}
