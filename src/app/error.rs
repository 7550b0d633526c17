//! Why the sidecar cannot start.

use std::{io, path::PathBuf};

use crate::{
    health_check::CheckerError,
    heir::{ConnectError, InvalidBaseUrl},
    listener::{Address, InvalidAddress},
    write::JournalError,
};

/// Why the sidecar cannot start.
#[derive(Debug, thiserror::Error)]
pub enum BuildError {
    /// A listener's address cannot be bound.
    #[error("cannot listen at {address}")]
    Listen {
        /// The address as configured.
        address: Address,
        /// What the operating system reports.
        #[source]
        source: io::Error,
    },
    /// `admin.listen` is not an address.
    #[error("admin.listen")]
    AdminListen(#[from] InvalidAddress),
    /// `heir.url` is not a valid base URL.
    #[error("heir.url")]
    HeirUrl(#[from] InvalidBaseUrl),
    /// The TLS files or the token file for HEIR cannot be used.
    #[error("cannot prepare the connection to HEIR")]
    Connect(#[from] ConnectError),
    /// `admin.token_file` cannot be read.
    #[error("admin.token_file")]
    Token(#[source] io::Error),
    /// `state_dir` cannot be created or locked.
    #[error("cannot use state_dir {path}")]
    StateDir {
        /// The configured directory.
        path: PathBuf,
        /// What the operating system reports.
        #[source]
        source: io::Error,
    },
    /// Another process holds the lock on `state_dir`.
    #[error("state_dir {path} is in use by another process; give each sidecar a directory of its own")]
    StateDirInUse {
        /// The configured directory.
        path: PathBuf,
    },
    /// The write journal cannot be opened.
    #[error(transparent)]
    Journal(#[from] JournalError),
    /// `policies_dir` cannot be read.
    #[error("cannot read policies_dir {path}")]
    Directory {
        /// The configured directory.
        path: PathBuf,
        /// What the operating system reports.
        #[source]
        source: io::Error,
    },
    /// `extensions_dir` cannot be read.
    #[error("cannot read extensions_dir {path}")]
    ExtensionsDirectory {
        /// The configured directory.
        path: PathBuf,
        /// What the operating system reports.
        #[source]
        source: io::Error,
    },
    /// The keys of those who sign modules cannot be read.
    #[error("extensions.signatures: {reason}")]
    Signatures {
        /// Which of them, and why.
        reason: String,
    },
    /// The operating system refuses a thread.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    /// The health checks cannot be set up.
    #[error("health_checks")]
    HealthChecks(#[from] CheckerError),
    /// A metric cannot be registered.
    #[error("two metrics have the same name")]
    Metrics(#[from] prometheus::Error),
}
