//! The local directories of policies and extensions.

use std::{path::Path, sync::Arc, time::Duration};

use super::{error::BuildError, reload::ConfigSource};
use crate::{
    config::Config,
    extensions::{ExtensionHost, ExtensionMetrics, ExtensionRecords, signing::Trust},
    readiness::Readiness,
    refresh::Directory,
    snapshot::SnapshotStore,
};

/// How long listening waits for modules that were compiled before.
const COMPILED_WITHIN: Duration = Duration::from_millis(500);

/// The host of extensions, with the records of the local directory read.
pub(super) fn extension_host(
    config: &Config,
    state_dir: Option<&Path>,
    source: &ConfigSource,
    metrics: &Arc<ExtensionMetrics>,
) -> Result<Arc<ExtensionHost>, BuildError> {
    let dir = Some(config.extensions_dir.as_path()).filter(|dir| !dir.as_os_str().is_empty());
    if config.extensions.enabled {
        Trust::read(&config.extensions.signatures).map_err(|reason| BuildError::Signatures { reason })?;
    }
    let host = ExtensionHost::new(
        config.extensions.clone(),
        dir,
        state_dir,
        source.program().to_owned(),
        metrics.clone(),
    );
    if let Some(path) = dir {
        let records = host
            .read_directory()
            .map_err(|source| BuildError::ExtensionsDirectory {
                path: path.to_owned(),
                source,
            })?;
        tracing::info!(records, path = %path.display(), "Read the local extensions.");
    }
    Ok(Arc::new(host))
}

/// Takes what was compiled before, so that an extension that could be called before the start can be called after it. The
/// rest is compiled once this sidecar listens.
pub(super) fn load_compiled(host: &Arc<ExtensionHost>, heir: &ExtensionRecords) {
    host.load_compiled(heir, COMPILED_WITHIN);
}

/// The local policies, published.
pub(super) fn load_directory(
    config: &Config,
    store: &SnapshotStore,
    readiness: &Readiness,
) -> Result<Option<Arc<Directory>>, BuildError> {
    let path = &config.policies_dir;
    if path.as_os_str().is_empty() {
        return Ok(None);
    }
    let directory = Directory::new(path, config.limits.max_body_bytes);
    let policies = directory
        .load_into(store)
        .map_err(|source| BuildError::Directory {
            path: path.clone(),
            source,
        })?;
    tracing::info!(policies, path = %path.display(), "Read the local policies.");
    if policies > 0 {
        readiness.has_files();
    }
    Ok(Some(Arc::new(directory)))
}
