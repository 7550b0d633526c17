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
    #[error("cannot listen at {address}")]
    Listen {
        address: Address,
        #[source]
        source: io::Error,
    },
    #[error("admin.listen")]
    AdminListen(#[from] InvalidAddress),
    #[error("heir.url")]
    HeirUrl(#[from] InvalidBaseUrl),
    #[error("cannot prepare the connection to HEIR")]
    Connect(#[from] ConnectError),
    #[error("admin.token_file")]
    Token(#[source] io::Error),
    #[error("cannot use state_dir {path}")]
    StateDir {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("state_dir {path} is in use by another process; give each sidecar a directory of its own")]
    StateDirInUse { path: PathBuf },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot read policies_dir {path}")]
    Directory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot read extensions_dir {path}")]
    ExtensionsDirectory {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
    #[error("health_checks")]
    HealthChecks(#[from] CheckerError),
    #[error("two metrics have the same name")]
    Metrics(#[from] prometheus::Error),
}
